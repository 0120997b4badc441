//! The limits of `[server]`, which hold whatever the policies are.

use std::sync::Arc;

use policies::{AttemptResult, Clock, Denial, KeyedLimit, Subject};

use super::{client_address::ClientAddress, failures::Failures};
use crate::config::server::ServerSettings;

/// What clients have used up of the limits.
pub struct ServerLimits {
    pub(super) failures: Arc<Failures>,
    /// Tells the clients apart.
    pub(super) proxies: ClientAddress,
    reads: KeyedLimit,
}

/// Which of the limits a request is subject to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// None: an operator describes the request.
    Nothing,
    /// `failures`
    Failures,
    /// `failures` and `reads`
    Reads,
}

impl ServerLimits {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(settings: &ServerSettings, proxies: &ClientAddress, clock: &Arc<dyn Clock>) -> Self {
        Self {
            failures: Arc::new(Failures::new(&settings.failures, clock.clone())),
            proxies: proxies.clone(),
            reads: KeyedLimit::new(&settings.reads, clock.clone()),
        }
    }

    /// Counts a read of `subject`.
    ///
    /// # Errors
    ///
    /// If the subject has read too often.
    pub(super) fn read(&self, subject: &Subject) -> Result<(), Denial> {
        match self.reads.take(subject.id.as_str()) {
            AttemptResult::Allowed { .. } => Ok(()),
            AttemptResult::Denied { retry_after, .. } => Err(Denial::ServerLimited {
                key: "reads",
                retry_after,
            }),
        }
    }
}
