//! The tables, and the secret of keyed digests.

use rusqlite::Connection;

use super::{keys, outbox, reconciliations, rows, storage};

/// Creates missing tables.
pub(in crate::stores) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    for create in [
        rows::CREATE,
        keys::CREATE,
        storage::CREATE,
        outbox::CREATE,
        reconciliations::CREATE,
    ] {
        connection.execute_batch(create)?;
    }
    if !connection.column_exists(None, "upload_records", "follow_at")? {
        connection.execute_batch(ADD_COLUMNS)?;
    }
    connection.execute_batch(rows::CREATE_INDEX)
}

/// For a file from before uploads were followed. Uploads of its last day are followed.
const ADD_COLUMNS: &str = "
BEGIN IMMEDIATE;
ALTER TABLE upload_intents ADD COLUMN counters TEXT;
ALTER TABLE upload_records ADD COLUMN counters TEXT;
ALTER TABLE upload_records ADD COLUMN follow_at INTEGER;
ALTER TABLE upload_records ADD COLUMN events INTEGER;
UPDATE upload_records SET follow_at = 0
WHERE state = 2 AND token IS NULL AND created_at > (unixepoch() - 86400) * 1000000;
COMMIT;
";

/// Makes what an earlier process left due: it no longer works on it.
pub(in crate::stores) fn take_over_records(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "UPDATE upload_intents SET due_at = 0;
         UPDATE upload_erasures SET taken_until = 0;
         UPDATE upload_reconciliations SET taken_until = 0",
    )
}

/// Keeps `new`, unless there is a secret.
pub(super) fn keep_secret(connection: &Connection, new: [u8; 32]) -> rusqlite::Result<[u8; 32]> {
    let insert = "INSERT INTO upload_secret VALUES (1, ?) ON CONFLICT DO NOTHING";
    connection.execute(insert, [new])?;
    find_secret(connection)
}

pub(super) fn find_secret(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    connection.query_row("SELECT secret FROM upload_secret", [], |row| row.get(0))
}
