//! Errors that prevent a start, with hints.

use std::io;

use policies::BuildError;

use crate::{
    config::server::Bind,
    outbound::reason,
    stores::{OpenError, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {bind}: {}", reason(.source, ""))]
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
                    "another process listens on this address; stop it, or change `bind` in [server] or [management]",
                ),
                (io::ErrorKind::AlreadyExists, Bind::Unix(_)) => {
                    Some("move the file, or change `bind` in [server] or [management]")
                }
                (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied, Bind::Unix(_)) => {
                    Some("create the folder of the socket, and make it writable for the gate")
                }
                (io::ErrorKind::AddrNotAvailable, Bind::Tcp(_)) => Some(
                    "this machine does not have this address; use `0.0.0.0` to listen on all IPv4 addresses",
                ),
                (io::ErrorKind::PermissionDenied, Bind::Tcp(_)) => {
                    Some("ports below 1024 need a privilege; use a higher port behind your proxy")
                }
                _ => None,
            },
            Self::Store(StoreError { source, .. }) => match source {
                OpenError::InUse(_) => Some(
                    "stop the other gate; to share a store among gates, use `postgres://` or `redis://`",
                ),
                OpenError::Io { .. } => {
                    Some("create the folder of the store's file, and make it writable for the gate")
                }
                OpenError::File(_) | OpenError::Database { .. } => None,
            },
            Self::Policy(_) => None,
        }
    }
}
