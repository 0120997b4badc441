//! How a transaction begins that depends on no setting of its session, and leaves none behind.
//!
//! Behind a pooler, other clients may have changed the session: `default_transaction_read_only`, `search_path`, `role`
//! and so on. A transaction resets what matters for itself.

use std::time::Duration;

use futures_util::future::join3;
use tokio_postgres::{Client, Error, error::SqlState};

pub(super) enum Access<'a> {
    /// For the counters.
    Write { commits_are_durable: bool },
    /// For the tables of the counters.
    Migrate,
    /// For queries of the operator, and tables in `search_path`.
    Read { search_path: Option<&'a str> },
}

/// The statements that begin a transaction, as one message. The server cancels a statement after `timeout`.
pub(super) fn begin(access: Access<'_>, timeout: Duration) -> String {
    let millis = |time: Duration| time.as_millis().max(1);
    let mode = match access {
        Access::Read { .. } => "only",
        Access::Write { .. } | Access::Migrate => "write",
    };
    let mut begin = format!("begin isolation level read committed read {mode}");
    let mut set = |name: &str, value: &str| {
        begin.push_str("; set local ");
        begin.push_str(name);
        begin.push_str(" to ");
        begin.push_str(value);
    };
    set("session_authorization", "default");
    set("role", "default");
    set("client_encoding", "'UTF8'");
    let whole = millis(timeout).to_string();
    set("statement_timeout", &whole);
    set("idle_in_transaction_session_timeout", &whole);
    match access {
        Access::Write {
            commits_are_durable,
        } => {
            set("search_path", "pg_catalog");
            // Briefly, because other requests of the batch wait, too.
            set("lock_timeout", &millis(timeout / 4).to_string());
            let durable = if commits_are_durable { "default" } else { "on" };
            set("synchronous_commit", durable);
        }
        Access::Migrate => {
            set("search_path", "pg_catalog");
            set("lock_timeout", &whole);
            set("synchronous_commit", "on");
        }
        Access::Read { search_path } => {
            let path = search_path.map(quoted);
            set("search_path", path.as_deref().unwrap_or("default"));
            set("lock_timeout", &whole);
            for name in [
                "timezone",
                "datestyle",
                "intervalstyle",
                "standard_conforming_strings",
                "row_security",
            ] {
                set(name, "default");
            }
        }
    }
    begin
}

/// For questions about the server, on a connection of which nothing is known.
pub(super) fn begin_inspection(timeout: Duration) -> String {
    format!(
        "begin isolation level read committed read only; set local search_path to pg_catalog; \
         set local statement_timeout to {}",
        timeout.as_millis().max(1)
    )
}

/// The schemas of a list, as identifiers.
pub(super) fn quoted(path: &str) -> String {
    let schemas = path.split(',').map(|schema| {
        let schema = schema.trim().trim_matches('"');
        format!("\"{}\"", schema.replace('"', "\"\""))
    });
    schemas.collect::<Vec<_>>().join(", ")
}

/// Runs one statement in a transaction, in one round trip.
pub(super) async fn in_transaction<T>(
    client: &Client,
    begin: &str,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    // Each of these sends its message when it is first polled, in this order.
    let (begun, result, committed) = join3(
        client.batch_execute(begin),
        statement,
        client.batch_execute("commit"),
    )
    .await;
    outcome(begun, result, committed)
}

/// The result of a transaction whose messages were sent together. If it could not begin, the statement has run without
/// it, or has failed because of it.
pub(super) fn outcome<T>(
    begun: Result<(), Error>,
    result: Result<T, Error>,
    ended: Result<(), Error>,
) -> Result<T, Error> {
    let (begin_error, error) = match (begun, result) {
        (Ok(()), Ok(done)) => return ended.map(|()| done),
        (Err(error), Ok(_)) | (Ok(()), Err(error)) => return Err(error),
        (Err(begin_error), Err(error)) => (begin_error, error),
    };
    // A standby refuses both, and the second error says why. Otherwise the second one follows from the first.
    match error.code() {
        None | Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => Err(begin_error),
        Some(_) => Err(error),
    }
}
