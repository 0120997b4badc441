//! Why Imgwire created no token.

use std::time::Duration;

use crate::outbound::{HttpError, InvalidResponse};

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
