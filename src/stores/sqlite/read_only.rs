//! A read-only file of counters, even while another gate has it open.

use std::{path::Path, sync::Arc};

use policies::{Counter, StoreName, Window};

use super::super::{
    fault::StoreFault,
    ports::{OpenPorts, Port},
    read_only::ReadOnly,
};
use super::database::Database;

/// The file need not exist yet.
pub(super) fn open(path: &Path, store: &StoreName) -> OpenPorts {
    let (read_path, check_path) = (path.to_owned(), path.to_owned());
    let file = Arc::new(ReadOnly {
        store: store.clone(),
        read: Box::new(move |counter| read(&read_path, counter).map_err(|error| error.to_string())),
        check: Box::new(move || check(&check_path)),
    });
    OpenPorts {
        ports: vec![Port::Quotas(file.clone())],
        health: file,
    }
}

fn read(path: &Path, counter: &Counter) -> rusqlite::Result<Option<(u64, Window)>> {
    if !path.exists() {
        return Ok(None);
    }
    let row = Database::open_read_only(path)?.read(counter)?;
    Ok(row.map(|row| (row.used, row.window)))
}

/// Fails if the file cannot be read and written, or cannot be created if it does not exist. Changes nothing.
fn check(path: &Path) -> Result<(), StoreFault> {
    if path.exists() {
        let tried = Database::try_out(path);
        return tried.map_err(|error| StoreFault::Refused(error.to_string()));
    }
    let mut folders = path.ancestors().skip(1);
    let folder = folders.find(|folder| folder.exists());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let created = tempfile::tempfile_in(folder).map(drop);
    created.map_err(|error| {
        let message = format!("cannot create a file in {}: {error}", folder.display());
        StoreFault::Refused(message)
    })
}
