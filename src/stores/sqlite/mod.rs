//! Quotas, records of uploads, and memberships in a SQLite file.
//!
//! A lock on the file ensures that only one process opens the counters. So the counters in use live in memory, and
//! reservations are decided without waiting for the disk. One thread writes them, many reservations in one commit,
//! while Imgwire creates the token. The token is sent only after the commit that counts it is on disk.
//!
//! - [`quotas`]: the quotas, and the thread that writes them.
//! - [`ledger`]: the counters in memory, and which of them must be written.
//! - [`shared`]: how the requests and the writer wake each other.
//! - [`records`]: records of uploads.
//! - [`reader`]: the thread that reads records.
//! - [`database`]: the commits, and the SQL of the counters.
//! - [`connection`]: what all connections to a file have in common.
//! - [`file`]: the lock on the file, and whether its path still names it.
//! - [`access`]: why a file cannot be opened.
//! - [`read_only`]: the counters and records of a file that another process may have open.
//! - [`members`]: memberships in any file.
//! - [`url`]: which file a URL names.

mod access;
mod connection;
mod database;
mod file;
mod ledger;
mod members;
mod quotas;
mod read_only;
mod reader;
mod records;
mod shared;
mod url;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use policies::StoreUse;

pub(super) use self::read_only::ReadOnly;
use self::{members::Members, quotas::Counters};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, OpenPorts, StoreKind},
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "SQLite",
    example: "sqlite:data/gate.db",
    uses: &[StoreUse::Quotas, StoreUse::Uploads, StoreUse::Memberships],
    rights: "make the file and its folder readable and writable for the user that the gate runs as",
    takes_password: false,
    takes_prefix: false,
    is_opened_once: false,
    parse: |text| {
        let path = url::parse(text)?;
        Some(path.map(|path| at(&path)).map_err(str::to_owned))
    },
};

struct SqliteFile(PathBuf);

pub(super) fn at(path: &Path) -> Arc<dyn Location> {
    Arc::new(SqliteFile(path.to_owned()))
}

impl Location for SqliteFile {
    fn file(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError> {
        if options.is_for(StoreUse::Memberships) {
            let members = Arc::new(Arc::new(Members::new(&self.0, options)));
            return Ok(OpenPorts {
                memberships: Some(members.clone()),
                ..OpenPorts::none(members)
            });
        }
        if options.read_only {
            return Ok(ReadOnly::open(options.name, Some(&self.0)));
        }
        let counters = Arc::new(Counters::open(&self.0, options)?);
        Ok(OpenPorts {
            quotas: Some(counters.clone()),
            records: Some(counters.clone()),
            ..OpenPorts::none(counters)
        })
    }
}
