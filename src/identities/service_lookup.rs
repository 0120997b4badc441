//! Asks another service about a credential: within the limit of failures, counted, and cached.

use policies::{Denial, IdentityName, Interval};

use super::{
    kind::{AuthError, BuildContext, fault},
    limits::FailureTracker,
};
use crate::{
    outbound::{
        Outbound,
        cache::HeapSize,
        digest::Digest,
        single_flight::{ServiceResult, SingleFlightCache},
    },
    telemetry::CallResult,
};

pub(super) const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// How long a service may take by default.
pub(super) fn default_timeout() -> Interval {
    Interval::from_secs(2)
}
/// A credential that no service knows, for `doctor`.
pub(super) const MADE_UP: &str = "imgwire-gate-doctor";

/// The service of one identity. It accepts a credential with a `T`, or rejects it with a denial.
pub(super) struct ServiceLookup<T> {
    pub(super) identity: IdentityName,
    pub(super) outbound: Outbound,
    cache: SingleFlightCache<Result<T, Denial>>,
}

impl<T: Clone + HeapSize> ServiceLookup<T> {
    pub(super) fn new(ttl: Option<Interval>, context: &BuildContext<'_>) -> Self {
        let ttl = ttl.map(Interval::get);
        Self {
            identity: context.name.clone(),
            outbound: context.outbound.clone(),
            cache: SingleFlightCache::new(ttl, Result::is_err, context.outbound),
        }
    }

    /// Returns the cached result, or the one of `ask`. `is_failure` says whether a result counts as a failed credential.
    pub(super) async fn get(
        &self,
        key: &Digest,
        failures: &FailureTracker<'_>,
        ask: impl Future<Output = ServiceResult<Result<T, Denial>>>,
        is_failure: impl Fn(&Result<T, Denial>) -> bool,
    ) -> Result<T, AuthError> {
        let fetch = async {
            let call = failures.start_call().await?;
            let result = ask.await;
            let (metrics, outcome) = (&self.outbound.metrics, CallResult::of(&result));
            metrics.identity_calls(self.identity.clone(), outcome).inc();
            call.finish(result.as_ref().is_ok_and(is_failure));
            Ok(result)
        };
        let result: Result<_, Denial> = self.cache.get_or_refuse(key, fetch).await;
        let result = result?.map_err(|error| fault(&self.identity, error))?;
        Ok(result?)
    }
}
