//! What the clients of all workers share.

use std::sync::{Arc, atomic::AtomicBool};

use actix_web::http::Uri;
use policies::Clock;
use secrecy::SecretString;

use super::{
    api_key::CurrentKey,
    breaker::Breaker,
    error::ImgwireError,
    pool::Pool,
    refusal::{Change, Refusal, RefusalState, Seen},
};
use crate::{config::ImgwireSettings, outbound::Peer, telemetry::Metrics};

pub struct Upstream {
    pub breaker: Breaker,
    pub pool: Option<Arc<Pool>>,
    pub api_key: CurrentKey,
    pub refusals: RefusalState,
    /// Whether a client asks again in the background.
    pub(super) is_asking: AtomicBool,
    pub(super) peer: Arc<Peer>,
    pub(super) metrics: Arc<Metrics>,
}

impl Upstream {
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        api_key: &SecretString,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let url = Uri::try_from(settings.base_url.as_str())
            .expect("the config checks that a base URL is a URL");
        Arc::new(Self {
            breaker: Breaker::new(settings.breaker.failures, settings.breaker.probe.get()),
            pool: (settings.pool.as_ref()).map(|pool| Pool::new(pool, clock, metrics)),
            api_key: CurrentKey::new(api_key),
            refusals: RefusalState::default(),
            is_asking: AtomicBool::new(false),
            peer: Peer::new(&url, clock, metrics),
            metrics: metrics.clone(),
        })
    }

    /// Replaces the Server API Key for the requests that start from now on. Drops what the earlier key led to: the tokens
    /// in the pool, which Imgwire may refuse once that key is revoked, and the state in which Imgwire refuses requests.
    pub fn replace_key(&self, api_key: &SecretString) {
        let Some(generation) = self.api_key.replace(api_key) else {
            return;
        };
        if let Some(pool) = &self.pool {
            pool.empty(generation);
        }
        self.refusals.forget();
        tracing::info!("Server API Key replaced");
    }

    /// Counts the error of an attempt, and logs whether Imgwire begins or ceases to refuse requests. `speaks_for_all` says
    /// whether every refusal of the call concerns the gate, and not only an image or an upload.
    pub(super) fn record<T>(
        &self,
        seen: Seen,
        result: &Result<T, ImgwireError>,
        speaks_for_all: bool,
    ) {
        let error = result.as_ref().err();
        let body = error.and_then(ImgwireError::body);
        if let Some(body) = body {
            self.metrics.imgwire_errors(body.label()).inc();
        }
        let refusal = error.and_then(ImgwireError::refusal);
        if error.is_some() && refusal.is_none() {
            // An outage or a rate limit says nothing about refusals.
            return;
        }
        let reason = refusal.or(seen.refusal());
        if !speaks_for_all && !reason.is_none_or(Refusal::concerns_all_calls) {
            // Imgwire may refuse an upload and create tokens, or show an image and refuse uploads.
            return;
        }
        match self.refusals.record(seen, refusal) {
            Some(Change::Refuses(reason)) => tracing::error!(
                %reason,
                error_type = body.and_then(|body| body.error_type.as_deref()),
                detail = body.and_then(|body| body.detail.as_deref()),
                "Imgwire refuses requests"
            ),
            Some(Change::Accepts) => tracing::error!("Imgwire accepts requests again"),
            None => {}
        }
    }
}
