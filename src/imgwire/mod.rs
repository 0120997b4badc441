//! Imgwire, the service on the other side: its client, and an emulator of it.

mod attempt;
mod client;
mod connector;
pub mod emulator;

use std::time::Duration;

use jiff::Timestamp;

pub use self::client::{Caller, Client};

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
    /// An answer without a token in it.
    #[error("Imgwire's answer cannot be used: {0}")]
    Unreadable(&'static str),
}

impl ImgwireError {
    /// Whether another attempt may do better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Timeout => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Unreadable(_) => false,
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
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// What a creation came to, and what it took.
pub struct Creation {
    /// The token, or why there is none.
    pub result: Result<UploadToken, ImgwireError>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How long they took together.
    pub took: Duration,
}
