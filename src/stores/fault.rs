//! Why a store cannot be opened, and why an operation of one has no result.

use std::fmt::Display;

use policies::{Fault, StoreName};

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
#[error("store `{name}`: {source}")]
pub struct StoreError {
    /// Which store.
    pub name: StoreName,
    /// Why not.
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

/// Why a backend cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or what stands beside it, cannot be made or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another process: a file of counters has one gate at a time")]
    InUse(String),
    /// The database refuses it.
    #[error("{path}: {source}")]
    Database {
        /// Which file.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The store is known to be down, so nothing was sent.
    #[error("the store is down, and is being probed")]
    Down,
    /// No connection could be opened.
    #[error("no connection to the store: {0}")]
    Unreachable(#[from] Unreachable),
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// The connection was closed before a byte of the operation was sent.
    #[error("the connection to the store was closed before the operation was sent")]
    Unsent,
    /// The connection broke while the answer was awaited.
    #[error("the connection to the store broke: {0}")]
    Broken(String),
    /// Another transaction has locked what the operation is about.
    #[error("another transaction has locked the counter")]
    Locked,
    /// The store answered with an error, or with something that makes no sense.
    #[error("{0}")]
    Refused(String),
}

/// Why no connection could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// A host said nothing in its share of the time.
    #[error("{0} did not answer in time")]
    Silent(String),
    /// A host could not be used.
    #[error("{host}: {reason}")]
    Failed {
        /// The host.
        host: String,
        /// Why it could not be used.
        reason: String,
    },
    /// There is no host to connect to.
    #[error("no host is known")]
    NoHost,
}

impl Unreachable {
    /// A host that could not be used.
    pub(super) fn failed(host: impl ToString, reason: impl ToString) -> Self {
        Self::Failed {
            host: host.to_string(),
            reason: reason.to_string(),
        }
    }
}

impl StoreFault {
    /// Whether nothing was heard, rather than something bad.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Unreachable(Unreachable::Silent(_))
        )
    }

    /// The fault of a membership query.
    pub(super) fn of_query(message: impl Display) -> Self {
        Self::Refused(format!("the query fails: {message}"))
    }

    /// The fault of a membership query whose second column holds something else.
    pub(super) fn no_id(found: impl Display) -> Self {
        Self::of_query(format!(
            "the second column must be the workspace's id, a text, a uuid or an integer, and is {found}"
        ))
    }

    /// The fault of a membership query whose first column holds something else.
    pub(super) fn no_text(found: impl Display) -> Self {
        Self::of_query(format!(
            "the first column must be the role, a text or null, and is {found}"
        ))
    }
}
