//! A file of counters that is only looked at: beside a gate that has it open, or instead of one.

use std::path::{Path, PathBuf};

use futures_util::future::{LocalBoxFuture, ready};
use policies::{Counter, Fault, QuotaStore, Reserving, StoreName, Window};

use super::database::Database;
use crate::stores::{backend::Probe, look::only_looked_at, shared_quotas::used_in};

/// Says what is counted, and counts nothing.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) name: StoreName,
    /// The file, which need not be there yet.
    pub(super) file: PathBuf,
}

impl Look {
    fn counted(&self, counter: &Counter) -> rusqlite::Result<Option<(u64, Window)>> {
        if !self.file.exists() {
            return Ok(None);
        }
        let row = Database::open_to_read(&self.file)?.read(counter)?;
        Ok(row.map(|row| (row.used, row.window)))
    }
}

impl Probe for Look {
    fn is_healthy(&self) -> bool {
        true
    }

    fn try_it(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(ready(try_file(&self.file)))
    }
}

/// Whether a file can be read, or made where it is to be.
fn try_file(file: &Path) -> Result<(), String> {
    if file.exists() {
        let read = Database::open_to_read(file).and_then(|database| database.try_to_read());
        return read.map_err(|error| error.to_string());
    }
    let here = Path::new(".");
    let mut folders = file.ancestors().skip(1);
    let folder = folders.find(|folder| folder.exists()).unwrap_or(here);
    let made = tempfile::tempfile_in(folder);
    made.map(drop)
        .map_err(|error| format!("nothing can be made in {}: {error}", folder.display()))
}

impl QuotaStore for Look {
    fn reserve(&self, _: Counter, _: Window, _: u64) -> Reserving<'_> {
        Box::pin(ready(Err(only_looked_at(&self.name))))
    }

    fn used(
        &self,
        counter: Counter,
        window: Window,
    ) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        let counted = self.counted(&counter).map_err(|error| Fault::Store {
            store: self.name.clone(),
            source: error.to_string().into(),
        });
        Box::pin(ready(counted.map(|counted| used_in(window, counted))))
    }

    fn give_back(&self, _: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(ready(Err(only_looked_at(&self.name))))
    }
}
