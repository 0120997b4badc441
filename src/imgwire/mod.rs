//! The client of Imgwire, its circuit breaker and its pool of tokens.

mod breaker;
mod client;
mod pool;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::Clock;

pub use self::{
    breaker::{Breaker, BreakerState},
    client::{Caller, Client},
    pool::Pool,
};
use crate::{
    config::ImgwireSettings,
    outbound::{HttpError, InvalidResponse, Peer},
    telemetry::Metrics,
};

pub struct UploadToken {
    pub token: String,
    /// If Imgwire gave one.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImgwireError {
    #[error("Imgwire cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection to Imgwire broke: {0}")]
    Broken(String),
    #[error("Imgwire did not answer in time")]
    Timeout,
    #[error("Imgwire answered {status}")]
    Refused {
        status: u16,
        /// From `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The circuit breaker is open.
    #[error("Imgwire is down, and is being tried")]
    Down,
    #[error("Imgwire's answer cannot be used: {0}")]
    Unreadable(String),
}

impl From<HttpError> for ImgwireError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unreachable(reason) => Self::Unreachable(reason),
            HttpError::Broken(reason) => Self::Broken(reason),
            HttpError::Timeout => Self::Timeout,
            HttpError::TooLong => Self::Unreadable("it is too long".to_owned()),
        }
    }
}

impl From<InvalidResponse> for ImgwireError {
    fn from(error: InvalidResponse) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl ImgwireError {
    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Down | Self::Unreadable(_) => false,
        }
    }

    /// Whether Imgwire seems to be down, rather than to refuse this gate.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout | Self::Unreadable(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 500..=599),
            Self::Down => false,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Refused { .. } => "refused",
            Self::Down => "down",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

pub struct Creation {
    pub result: Result<UploadToken, ImgwireError>,
    /// 0 for a token from the pool.
    pub attempts: u32,
    /// For all attempts together.
    pub took: Duration,
}

/// Shared by all clients of a gate.
pub struct Upstream {
    pub breaker: Breaker,
    pub pool: Option<Arc<Pool>>,
    peer: Arc<Peer>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            breaker: Breaker::new(settings.breaker.failures, settings.breaker.probe.get()),
            pool: (settings.pool.as_ref()).map(|pool| Pool::new(pool, clock, metrics)),
            peer: Peer::new(clock.clone()),
            metrics: metrics.clone(),
        })
    }
}
