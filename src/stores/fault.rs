//! Why a store cannot be opened, and why an operation of one has no result.

use std::fmt::Display;

use policies::{Fault, StoreName};

#[derive(Debug, thiserror::Error)]
#[error("store `{name}`: {source}")]
pub struct StoreError {
    pub name: StoreName,
    pub source: OpenError,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store {
            store: error.name,
            source: Box::new(error.source),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or a file beside it.
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error("{0} is in use by another process: a file of counters has one gate at a time")]
    InUse(String),
    #[error("{path}: {source}")]
    Database {
        path: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The store is known to be down, so nothing was sent.
    #[error("the store is down, and is being probed")]
    Down,
    #[error("no connection to the store: {0}")]
    Unreachable(#[from] Unreachable),
    #[error("the store did not answer in time")]
    Timeout,
    /// The connection was closed before a byte of the operation was sent.
    #[error("the connection to the store was closed before the operation was sent")]
    Unsent,
    #[error("the connection to the store broke: {0}")]
    Broken(String),
    #[error("another transaction has locked the counter")]
    Locked,
    /// Includes answers that cannot be understood.
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    #[error("{0} did not answer in time")]
    Silent(String),
    #[error("{host}: {reason}")]
    Failed { host: String, reason: String },
    #[error("no host is known")]
    NoHost,
}

impl Unreachable {
    pub(super) fn failed(host: impl ToString, reason: impl ToString) -> Self {
        Self::Failed {
            host: host.to_string(),
            reason: reason.to_string(),
        }
    }
}

impl StoreFault {
    /// Whether the store was silent, rather than answered with an error.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Unreachable(Unreachable::Silent(_))
        )
    }

    pub(super) fn of_query(message: impl Display) -> Self {
        Self::Refused(format!("the query fails: {message}"))
    }

    pub(super) fn no_id(found: impl Display) -> Self {
        Self::of_query(format!(
            "the second column must be the workspace's id, a text, a uuid or an integer, and is {found}"
        ))
    }

    pub(super) fn no_text(found: impl Display) -> Self {
        Self::of_query(format!(
            "the first column must be the role, a text or null, and is {found}"
        ))
    }
}
