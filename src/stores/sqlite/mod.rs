//! Quotas and memberships in a SQLite file.
//!
//! A lock file ensures that only one process opens the counters. So the counters in use live in memory, and
//! reservations are decided without waiting for the disk. One thread writes them, many reservations in one commit,
//! while Imgwire creates the token. The token is sent only after the commit that counts it is on disk.
//!
//! - [`quotas`]: the quotas.
//! - [`ledger`]: the counters in memory, and which of them must be written.
//! - [`shared`]: how the requests and the writer wake each other.
//! - [`writer`]: the thread that writes.
//! - [`database`]: the SQL.
//! - [`read_only`]: a file that another process may have open.
//! - [`members`]: memberships in any file.

mod database;
mod ledger;
mod members;
mod quotas;
mod read_only;
mod shared;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use policies::StoreUse;

use self::{members::Members, quotas::Counters};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, StoreKind},
    ports::{OpenPorts, Port},
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "SQLite",
    example: "sqlite:data/gate.db",
    uses: &[StoreUse::Quotas, StoreUse::Memberships],
    rights: "make the file and its folder readable and writable for the user that the gate runs as",
    takes_password: false,
    is_opened_once: false,
    parse: |text| {
        Some(match text.strip_prefix("sqlite:")? {
            "" | ":memory:" => {
                Err("needs the path of a file; write for example \"sqlite:data/gate.db\"")
            }
            path => Ok(at(Path::new(path.strip_prefix("//").unwrap_or(path)))),
        })
    },
};

struct SqliteFile(PathBuf);

pub(super) fn at(path: &Path) -> Arc<dyn Location> {
    Arc::new(SqliteFile(path.to_owned()))
}

impl Location for SqliteFile {
    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError> {
        if options.is_for(StoreUse::Memberships) {
            let members = Arc::new(Arc::new(Members::new(&self.0, options)));
            return Ok(OpenPorts {
                ports: vec![Port::Memberships(members.clone())],
                health: members,
            });
        }
        if options.read_only {
            return Ok(read_only::open(&self.0, options.name));
        }
        let counters = Arc::new(Counters::open(&self.0, options)?);
        Ok(OpenPorts {
            ports: vec![Port::Quotas(counters.clone())],
            health: counters,
        })
    }
}
