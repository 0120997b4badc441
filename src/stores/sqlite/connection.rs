//! What all connections to a file of counters and records have in common.

use std::time::Duration;

use rusqlite::{Connection, config::DbConfig};

/// How long to wait for another process, such as an operator's shell, that locks the file.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How many statements stay prepared.
const STATEMENTS: usize = 64;

/// Keeps prepared statements, also with other values. Otherwise SQLite prepares a statement again for each value of a column
/// with a partial index, which costs 7 us of CPU.
pub(super) fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
