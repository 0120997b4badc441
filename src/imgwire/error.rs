//! Why a call to Imgwire failed.

use std::time::Duration;

use super::{error_body::ErrorBody, refusal::Refusal};
use crate::outbound::{HttpError, InvalidResponse};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImgwireError {
    #[error("cannot connect to Imgwire: {0}")]
    Unreachable(String),
    #[error("the connection to Imgwire failed: {0}")]
    Broken(String),
    #[error("no response from Imgwire within the timeout")]
    Timeout,
    #[error("Imgwire responded with status {status}")]
    Refused {
        status: u16,
        /// The value of `Retry-After`.
        retry_after: Option<Duration>,
        body: ErrorBody,
    },
    #[error("the circuit breaker for Imgwire is open")]
    CircuitOpen,
    #[error("Imgwire's base URL responded with a web page")]
    WebPage,
    #[error("invalid response from Imgwire: {0}")]
    InvalidResponse(String),
}

impl From<HttpError> for ImgwireError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unreachable(reason) => Self::Unreachable(reason),
            HttpError::Broken(reason) => Self::Broken(reason),
            HttpError::Timeout => Self::Timeout,
            HttpError::TooLarge => Self::InvalidResponse("it is too large".to_owned()),
        }
    }
}

impl From<InvalidResponse> for ImgwireError {
    fn from(error: InvalidResponse) -> Self {
        Self::InvalidResponse(error.to_string())
    }
}

impl ImgwireError {
    /// What Imgwire says about the error.
    #[must_use]
    pub fn body(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { body, .. } => Some(body),
            _ => None,
        }
    }

    /// The reason, if no retry can help.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { status, body, .. } => Refusal::classify(*status, body.kind),
            Self::WebPage => Some(Refusal::WrongBaseUrl),
            _ => None,
        }
    }

    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Refused { .. } => self.refusal().is_none(),
            Self::CircuitOpen | Self::WebPage | Self::InvalidResponse(_) => false,
        }
    }

    /// Whether Imgwire did nothing: it refused the call, or was not asked.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::CircuitOpen => true,
            Self::Refused { status, .. } => {
                (400..=499).contains(status) && !matches!(status, 408 | 409)
            }
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Timeout
            | Self::WebPage
            | Self::InvalidResponse(_) => false,
        }
    }

    /// Whether Imgwire seems to be down for every request. The circuit breaker counts only these errors.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout | Self::InvalidResponse(_) => {
                true
            }
            Self::Refused { status, .. } => *status != 429 && self.refusal().is_none(),
            Self::CircuitOpen | Self::WebPage => false,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Refused { .. } => "refused",
            Self::CircuitOpen => "down",
            Self::WebPage | Self::InvalidResponse(_) => "unreadable",
        }
    }
}
