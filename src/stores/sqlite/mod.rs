//! Quotas and memberships in a SQLite file.
//!
//! A lock file ensures that only one process opens the counters. So the counters in use live in memory, and
//! reservations are decided without waiting for the disk. One thread writes them, many reservations in one commit,
//! while Imgwire creates the token. The token is sent only after the commit that counts it is on disk.
//!
//! - [`counters`]: the quotas.
//! - [`ledger`]: the counters in memory, and which of them must be written.
//! - [`commit`]: pending commits, and how requests wait for them.
//! - [`shared`]: the ledger's lock, and how the requests and the writer wake each other.
//! - [`writer`]: the thread that writes.
//! - [`database`]: the SQL.
//! - [`look`]: read-only access to a file that another process may have open.
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
