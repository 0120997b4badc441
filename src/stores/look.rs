//! A store that is only looked at: beside a gate that has it open, or instead of one.

use std::path::{Path, PathBuf};

use futures_util::future::{LocalBoxFuture, ready};
use policies::{Counter, Fault, QuotaStore, Reserving, StoreName, Window};

use super::{Store, Trying, sqlite};

/// Says what is counted, and counts nothing.
pub(super) struct Look {
    pub(super) name: StoreName,
    /// The file, which need not be there yet; without one, nothing is counted.
    pub(super) file: Option<PathBuf>,
}

impl Look {
    fn fault(&self, message: String) -> Fault {
        Fault::Store {
            store: self.name.clone(),
            source: message.into(),
        }
    }

    fn refuse<T>(&self) -> Result<T, Fault> {
        Err(self.fault("it is only looked at".to_owned()))
    }
}

impl Store for Look {
    fn is_healthy(&self) -> bool {
        true
    }

    fn try_it(&self) -> Trying<'_> {
        Box::pin(ready(self.file.as_deref().map_or(Ok(()), try_file)))
    }
}

/// Whether a file can be read, or made where it is to be.
fn try_file(file: &Path) -> Result<(), String> {
    if file.exists() {
        return sqlite::try_to_read(file).map_err(|error| error.to_string());
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
        Box::pin(ready(self.refuse()))
    }

    fn used(
        &self,
        counter: Counter,
        window: Window,
    ) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        let used = match self.file.as_ref().filter(|file| file.exists()) {
            Some(file) => sqlite::look_up(file, &counter, window)
                .map_err(|error| self.fault(error.to_string())),
            None => Ok((0, window)),
        };
        Box::pin(ready(used))
    }

    fn give_back(&self, _: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(ready(self.refuse()))
    }
}
