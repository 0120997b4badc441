//! The transaction in which records change.

use rusqlite::Connection;

use super::keys::KeyWriter;

/// An open transaction.
pub(in crate::stores) struct RecordWriter<'a> {
    pub(in crate::stores) connection: &'a Connection,
    pub(in crate::stores) keys: &'a mut KeyWriter,
}

/// A change of records, which are not kept in memory.
pub(in crate::stores) type RecordChange =
    Box<dyn FnOnce(&mut RecordWriter<'_>) -> rusqlite::Result<()> + Send>;
