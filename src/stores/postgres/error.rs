//! What the server's errors mean.

use tokio_postgres::error::SqlState;

use crate::stores::QueryError;

/// A fault of the connection, of a server that ends or begins, or of the query.
pub(super) fn fault(error: &tokio_postgres::Error) -> QueryError {
    let down = match error.as_db_error() {
        // Classes 08 and 57: the connection, and an operator who stops the server.
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
        QueryError::Timeout
    } else if down {
        QueryError::Down(describe(error))
    } else {
        QueryError::Query(describe(error))
    }
}

/// What the server says, which the error alone does not show.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => error.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
