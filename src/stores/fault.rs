//! Errors of stores.

use std::fmt::Display;

use policies::{Fault, StoreName};

use crate::outbound::reason;

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
    #[error("{path}: {}", reason(.source, ""))]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error(
        "{0} is in use by another process; only one gate at a time can open a file of counters"
    )]
    InUse(String),
    #[error(transparent)]
    File(FileProblem),
    #[error("{path}: {source}")]
    Database {
        path: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a file cannot be used, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct FileProblem {
    pub problem: String,
    pub remedy: String,
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// Nothing was sent.
    #[error("the store is down; the gate probes it until it is back")]
    Down,
    #[error("cannot connect to the store: {0}")]
    Unreachable(#[from] Unreachable),
    #[error("the store did not answer in time")]
    Timeout,
    #[error(transparent)]
    File(#[from] FileProblem),
    /// Nothing of the operation was sent.
    #[error("the connection to the store was closed before the operation was sent")]
    Unsent,
    #[error("the connection to the store broke: {0}")]
    Broken(String),
    #[error("another transaction has locked the counter")]
    Locked,
    /// The store answered with an error, or with an invalid answer.
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    #[error("{0} did not answer in time")]
    Timeout(String),
    #[error("{host}: {reason}")]
    Failed { host: String, reason: String },
    #[error("the host name has no address")]
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
    pub(super) fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Unreachable(Unreachable::Timeout(_))
        )
    }

    pub(super) fn query(message: impl Display) -> Self {
        Self::Refused(format!("the query fails: {message}"))
    }

    pub(super) fn invalid_id(found: impl Display) -> Self {
        Self::query(format!(
            "expected the workspace's id in the second column (text, uuid or integer), found {found}"
        ))
    }

    pub(super) fn invalid_role(found: impl Display) -> Self {
        Self::query(format!(
            "expected the role in the first column (text or null), found {found}"
        ))
    }
}
