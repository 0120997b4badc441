//! Imgwire, the service on the other side: its client, and an emulator of it.

mod attempt;
mod breaker;
mod client;
pub mod emulator;
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

/// An upload token, as Imgwire made it.
pub struct UploadToken {
    /// The token itself.
    pub token: String,
    /// When it ends, if Imgwire said so.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why Imgwire gave no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImgwireError {
    /// No connection could be made.
    #[error("Imgwire cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke before the answer was whole.
    #[error("the connection to Imgwire broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("Imgwire did not answer in time")]
    Timeout,
    /// Another status than 200.
    #[error("Imgwire answered {status}")]
    Refused {
        /// The status.
        status: u16,
        /// How long Imgwire asks to wait.
        retry_after: Option<Duration>,
    },
    /// It is down, and is tried again before anybody else asks.
    #[error("Imgwire is down, and is being tried")]
    Down,
    /// An answer without a token in it.
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
    /// Whether another attempt may do better.
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

    /// The error's name in metrics.
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

/// What a creation came to, and what it took.
pub struct Creation {
    /// The token, or why there is none.
    pub result: Result<UploadToken, ImgwireError>,
    /// How many attempts were made; none for a token that was made ahead.
    pub attempts: u32,
    /// How long they took together.
    pub took: Duration,
}

/// What all clients of a gate share.
pub struct Upstream {
    /// Keeps requests from waiting while Imgwire is down.
    pub breaker: Breaker,
    /// Tokens made ahead, if they are configured.
    pub pool: Option<Arc<Pool>>,
    /// Imgwire, as all workers know it.
    peer: Arc<Peer>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// What the settings say.
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
