//! Quotas and memberships in a SQLite file.
//!
//! The process has the file of counters to itself (a lock beside it sees to that), so the counters in use live in
//! memory and a reservation is decided there and then, without waiting for the disk. What it counts is
//! written by one thread, many reservations in one commit, while Imgwire is asked; a token leaves only when
//! the commit that counts it has reached the disk.
//!
//! - [`counters`]: the quotas.
//! - [`ledger`]: the counters in memory, and what is to be written.
//! - [`commit`]: the commits to come, and the wait for them.
//! - [`shared`]: the ledger's lock, and how the requests and the writer wake each other.
//! - [`writer`]: the thread that writes.
//! - [`database`]: the SQL.
//! - [`look`]: a file of counters that another process may have open.
//! - [`members`]: memberships, looked up in any file.

mod commit;
mod counters;
mod database;
mod ledger;
mod look;
mod members;
mod shared;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use policies::StoreUse;

use self::{counters::Counters, members::Members};
use super::{
    fault::OpenError,
    kind::{Location, Opening, StoreKind},
    open::{Part, Port},
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "SQLite",
    example: "sqlite:data/gate.db",
    uses: &[StoreUse::Quotas, StoreUse::Memberships],
    takes_password: false,
    is_opened_once: false,
    parse: |text| {
        Some(match text.strip_prefix("sqlite:")? {
            "" | ":memory:" => Err("`sqlite:` needs the path of a file"),
            path => Ok(at(Path::new(path.strip_prefix("//").unwrap_or(path)))),
        })
    },
};

/// A file.
struct SqliteFile(PathBuf);

pub(super) fn at(path: &Path) -> Arc<dyn Location> {
    Arc::new(SqliteFile(path.to_owned()))
}

impl Location for SqliteFile {
    fn open(&self, opening: &Opening<'_>) -> Result<Part, OpenError> {
        if opening.is_for(StoreUse::Memberships) {
            let members = Arc::new(Arc::new(Members::new(&self.0, opening)));
            return Ok(Part {
                ports: vec![Port::Memberships(members.clone())],
                probe: members,
            });
        }
        if opening.only_looks {
            return Ok(look::at(&self.0, opening.name));
        }
        let counters = Arc::new(Counters::open(&self.0, opening)?);
        Ok(Part {
            ports: vec![Port::Quotas(counters.clone())],
            probe: counters,
        })
    }
}
