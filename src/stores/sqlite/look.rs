//! A read-only file of counters, even while another gate has it open.

use std::{path::Path, sync::Arc};

use policies::{Counter, StoreName, Window};

use super::database::Database;
use crate::stores::{
    look::Look,
    open::{Part, Port},
};

/// Shows the counters of a file, which need not exist yet.
pub(super) fn at(file: &Path, store: &StoreName) -> Part {
    let (read, tried) = (file.to_owned(), file.to_owned());
    let look = Arc::new(Look {
        store: store.clone(),
        read: Box::new(move |counter| counted(&read, counter).map_err(|error| error.to_string())),
        try_it: Box::new(move || try_file(&tried)),
    });
    Part {
        ports: vec![Port::Quotas(look.clone())],
        probe: look,
    }
}

fn counted(file: &Path, counter: &Counter) -> rusqlite::Result<Option<(u64, Window)>> {
    if !file.exists() {
        return Ok(None);
    }
    let row = Database::open_to_read(file)?.read(counter)?;
    Ok(row.map(|row| (row.used, row.window)))
}

/// Whether a file can be read, or created if it does not exist.
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
