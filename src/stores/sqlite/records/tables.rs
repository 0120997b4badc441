//! The tables, and the secret of keyed digests.

use rusqlite::Connection;

use super::{keys, rows};

/// Creates missing tables.
pub(in crate::stores) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(rows::CREATE)?;
    connection.execute_batch(keys::CREATE)
}

/// Makes what an earlier process left due: it no longer works on it.
pub(in crate::stores) fn take_over_records(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "UPDATE upload_intents SET due_at = 0; UPDATE upload_erasures SET taken_until = 0",
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
