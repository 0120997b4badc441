//! Why a call to a service failed.

use awc::error::{ConnectError, PayloadError, SendRequestError};

use super::reason::reason;

/// In faults of TLS after the handshake. Those of the handshake name the host.
const PEER: &str = "the server";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("the connection failed: {0}")]
    Broken(String),
    #[error("no response within the timeout")]
    Timeout,
    #[error("the response is too large")]
    TooLarge,
}

impl HttpError {
    /// The label in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
        }
    }
}

impl From<&SendRequestError> for HttpError {
    fn from(error: &SendRequestError) -> Self {
        match error {
            SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout) => {
                Self::Timeout
            }
            // awc reports this if the connection ends where a response should begin.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                Self::Broken("closed before a response".to_owned())
            }
            SendRequestError::Connect(error) => Self::Unreachable(reason(error, PEER)),
            error => Self::Broken(reason(error, PEER)),
        }
    }
}

impl From<PayloadError> for HttpError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::TooLarge,
            error => Self::Broken(reason(&error, PEER)),
        }
    }
}
