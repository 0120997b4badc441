//! Why a call failed.

use awc::error::{ConnectError, PayloadError, SendRequestError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no response in time")]
    Timeout,
    #[error("the response is too long")]
    TooLong,
}

impl From<&SendRequestError> for HttpError {
    fn from(error: &SendRequestError) -> Self {
        match error {
            SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout) => {
                Self::Timeout
            }
            // How awc reports a connection that ends where a response should begin.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                Self::Broken("closed before a response".to_owned())
            }
            SendRequestError::Connect(error) => Self::Unreachable(describe(error)),
            error => Self::Broken(describe(error)),
        }
    }
}

impl From<PayloadError> for HttpError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::TooLong,
            error => Self::Broken(describe(&error)),
        }
    }
}

/// The message of the innermost error: outer ones only say that something failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
