//! Why a gate does not start, and what to do about it.

use std::io;

use policies::BuildError;

use crate::{
    config::server::Bind,
    stores::{OpenError, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {bind}: {source}")]
    Listen { bind: Bind, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policy(#[from] BuildError),
}

impl StartError {
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { bind, source } => match (source.kind(), bind) {
                (io::ErrorKind::AddrInUse, _) => Some(
                    "another gate, or something else, listens there: end it, or change `bind` in [server] or \
                     [management]",
                ),
                (io::ErrorKind::AlreadyExists, Bind::Unix(_)) => {
                    Some("move the file away, or change `bind` in [server] or [management]")
                }
                (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied, Bind::Unix(_)) => {
                    Some("the socket's folder must be there, and be the gate's to write")
                }
                (io::ErrorKind::AddrNotAvailable, Bind::Tcp(_)) => {
                    Some("this machine has no such address; `0.0.0.0` listens on all that it has")
                }
                (io::ErrorKind::PermissionDenied, Bind::Tcp(_)) => {
                    Some("ports below 1024 need a privilege: take another one, behind your proxy")
                }
                _ => None,
            },
            Self::Store(StoreError { source, .. }) => match source {
                OpenError::InUse(_) => Some(
                    "end the other gate; several share a `postgres://` or a `redis://` store instead of a file",
                ),
                OpenError::Io { .. } => {
                    Some("the folder of the store's file must be there, and be the gate's to write")
                }
                OpenError::Database { .. } => None,
            },
            Self::Policy(_) => None,
        }
    }
}
