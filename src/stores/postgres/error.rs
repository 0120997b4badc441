//! Classifies errors of the server.

use tokio_postgres::error::SqlState;

use crate::stores::fault::StoreFault;

/// Distinguishes faults of the connection, or of a server that stops or starts, from those of the statement.
pub(super) fn fault(error: &tokio_postgres::Error) -> StoreFault {
    let is_broken = match error.as_db_error() {
        // Class 08 is a fault of the connection, and 57P a shutdown.
        Some(error) => ["08", "57P"]
            .iter()
            .any(|class| error.code().code().starts_with(class)),
        None => {
            error.is_closed()
                || std::error::Error::source(error)
                    .is_some_and(|source| source.is::<std::io::Error>())
        }
    };
    if error.code() == Some(&SqlState::QUERY_CANCELED) {
        StoreFault::Timeout
    } else if is_broken {
        StoreFault::Broken(describe(error))
    } else {
        StoreFault::Refused(describe(error))
    }
}

/// For a statement that writes. A server that has become a replica counts as a broken connection, because the primary
/// is elsewhere.
pub(super) fn write_fault(error: &tokio_postgres::Error) -> StoreFault {
    match error.code() {
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => StoreFault::Broken(describe(error)),
        Some(&SqlState::LOCK_NOT_AVAILABLE) => StoreFault::Locked,
        _ => fault(error),
    }
}

/// Includes the server's message, which the error itself does not show.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => error.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
