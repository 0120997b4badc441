//! A read-only store. It shows the counters and records of a file, even while another gate has it open, and changes
//! nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::{LocalBoxFuture, ready};
use policies::{
    AttemptResult, BoxFuture, Counter, Fault, Pass, QuotaStore, Rate, RateLimitStore, Reservation,
    StoreName, Window,
};
use rusqlite::Connection;

use super::{
    access::{Purpose, find_problem, open_fault},
    database::{COUNTERS, Database, read},
};
use crate::{
    outbound::reason,
    stores::{fault::StoreFault, health::HealthCheck, kind::OpenPorts, shared_quotas::used_in},
};

pub(in crate::stores) struct ReadOnly {
    store: StoreName,
    /// It need not exist yet. `None` if all counters are empty.
    file: Option<PathBuf>,
}

impl ReadOnly {
    pub(in crate::stores) fn open(store: &StoreName, file: Option<&Path>) -> OpenPorts {
        let open = Arc::new(Self {
            store: store.clone(),
            file: file.map(Path::to_owned),
        });
        OpenPorts {
            quotas: Some(open.clone()),
            rate_limits: Some(open.clone()),
            records: Some(open.clone()),
            ..OpenPorts::none(open)
        }
    }

    /// Runs a query; `None` if there is no such table.
    pub(super) fn read_file<T>(
        &self,
        table: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(path) = self.file.as_ref().filter(|path| path.exists()) else {
            return Ok(None);
        };
        let read = Database::read_from(path, table, query);
        read.map_err(|error| self.fault(error.to_string()))
    }

    /// Fails if the file cannot be read and written, or cannot be created if it does not exist. Changes nothing.
    fn check_file(&self) -> Result<(), StoreFault> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        if let Some(problem) = find_problem(path, Purpose::Count) {
            return Err(problem.into());
        }
        if path.exists() {
            return Database::try_out(path).map_err(|error| open_fault(path, &error));
        }
        let mut folders = path.ancestors().skip(1);
        let folder = folders.find(|folder| folder.exists());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let created = tempfile::tempfile_in(folder).map(drop);
        created.map_err(|error| {
            let (folder, reason) = (folder.display(), reason(&error, ""));
            StoreFault::Refused(format!("cannot create a file in {folder}: {reason}"))
        })
    }

    fn fault(&self, source: String) -> Fault {
        Fault::Store {
            store: self.store.clone(),
            source: source.into(),
        }
    }

    pub(super) fn refuse<'a, T: 'a>(&self) -> BoxFuture<'a, T> {
        Box::pin(ready(Err(self.fault("the store is read-only".to_owned()))))
    }
}

impl HealthCheck for ReadOnly {
    fn is_healthy(&self) -> bool {
        true
    }

    fn check(&self) -> LocalBoxFuture<'_, Result<(), StoreFault>> {
        Box::pin(ready(self.check_file()))
    }
}

impl QuotaStore for ReadOnly {
    fn reserve(&self, _: Counter, _: Window, _: u64) -> BoxFuture<'_, Reservation> {
        self.refuse()
    }

    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        let row = self.read_file(COUNTERS, |connection| read(connection, &counter));
        let counted = row.map(|row| row.flatten().map(|row| (row.used, row.window)));
        Box::pin(ready(counted.map(|counted| used_in(window, counted))))
    }

    fn give_back(&self, _: Counter, _: Window) -> BoxFuture<'_, ()> {
        self.refuse()
    }
}

impl RateLimitStore for ReadOnly {
    fn take(&self, _: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        match pass {
            Pass::Preview => Box::pin(ready(Ok(rate.allowed(rate.interval())))),
            Pass::Issue | Pass::Repeat | Pass::Resume => self.refuse(),
        }
    }
}
