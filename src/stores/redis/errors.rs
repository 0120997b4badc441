//! Says in words what an error of a Redis server means.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::outbound::reason;

/// By the code of the error.
const BY_CODE: [(&str, &str); 15] = [
    ("NOPERM", NO_RIGHT),
    ("WRONGPASS", "the server refuses the user or the password"),
    ("NOAUTH", "the server requires a password"),
    (
        "DENIED",
        "the server is in protected mode and serves only its own machine",
    ),
    (
        "OOM",
        "the server's memory is full (maxmemory), so it refuses writes",
    ),
    (
        "MISCONF",
        "the server cannot save its data to the disk, so it refuses writes",
    ),
    (
        "LOADING",
        "the server is still loading its data from the disk",
    ),
    ("BUSY", "a script of another client blocks the server"),
    ("READONLY", "the server is a replica, so it refuses writes"),
    (
        "MASTERDOWN",
        "the server is a replica that has lost its primary",
    ),
    (
        "NOREPLICAS",
        "the server has fewer replicas than min-replicas-to-write, so it refuses writes",
    ),
    ("CLUSTERDOWN", "the cluster does not serve this key"),
    ("TRYAGAIN", "the cluster is moving this key to another node"),
    (
        "WRONGTYPE",
        "the key has a value of another type, which the gate did not write",
    ),
    ("EXECABORT", "the server aborted the transaction"),
];

const NO_RIGHT: &str = "the user lacks a right";

/// By a part of the message of an error whose code says nothing.
const BY_TEXT: [(&str, &str); 10] = [
    (FULL, "the server has as many clients as maxclients allows"),
    (
        "without any password configured",
        "the config has a password, but the server has none",
    ),
    (
        "DB index is out of range",
        "the server does not have this database",
    ),
    (
        "SELECT is not allowed in cluster mode",
        "the server belongs to a cluster, which has only database 0",
    ),
    (
        "cluster support disabled",
        "the server does not belong to a cluster; write `redis://`",
    ),
    ("nknown command", NO_COMMAND),
    ("unsupported command", NO_COMMAND),
    ("ACL failure in script", NO_RIGHT),
    (NO_COMMAND_IN_SCRIPT, NO_RIGHT),
    (NO_KEY_IN_SCRIPT, NO_RIGHT),
];

const NO_COMMAND: &str = "the server, or a proxy before it, does not have this command";
const FULL: &str = "max number of clients";
const NO_COMMAND_IN_SCRIPT: &str = "executing the script can't run this command";
const NO_KEY_IN_SCRIPT: &str = "executing the script can't access";

/// How much of the server's own text is shown.
const MAX_TEXT: usize = 160;

/// Says what the error means, followed by the server's own text. `peer` names the server.
pub(super) fn explain(error: &RedisError, peer: &str) -> String {
    if error.kind() == ErrorKind::Io {
        return reason(error, peer);
    }
    let text = text(error);
    // A server that does not know `AUTH` repeats the password.
    let told = text.split(", with args").next().unwrap_or_default();
    let shown: String = told.chars().take(MAX_TEXT).collect();
    match (meaning(&text), missing_command(&text)) {
        (Some(NO_RIGHT), Some(command)) => format!("{NO_RIGHT}, +{command}: {shown}"),
        (Some(meaning), _) => format!("{meaning}: {shown}"),
        (None, _) => shown,
    }
}

/// Whether the user lacks a right.
pub(super) fn is_missing_right(error: &RedisError) -> bool {
    meaning(&text(error)) == Some(NO_RIGHT)
}

/// Whether the server, or a proxy before it, refuses the command itself.
pub(super) fn is_refused_command(error: &RedisError) -> bool {
    let text = text(error);
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || ["nknown command", "unsupported", "not supported", "disabled"]
            .iter()
            .any(|refusal| text.contains(refusal))
}

/// Whether the server refuses the connection. Its answer to any first command says so.
pub(super) fn is_refused_connection(error: &RedisError) -> bool {
    let text = text(error);
    text.starts_with("DENIED ") || text.contains(FULL)
}

/// Versions before 7 have the code of an error inside the error of a script.
pub(super) fn has_code(error: &RedisError, code: &str) -> bool {
    text_has_code(&text(error), code)
}

fn text_has_code(text: &str, code: &str) -> bool {
    let starts = |text: &str| {
        let rest = text.strip_prefix(code);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    starts(text) || text.split(" -").skip(1).any(starts)
}

fn meaning(text: &str) -> Option<&'static str> {
    let by_code = BY_CODE.iter().find(|(code, _)| text_has_code(text, code));
    let found = by_code.or_else(|| BY_TEXT.iter().find(|(part, _)| text.contains(part)));
    found.map(|(_, meaning)| *meaning)
}

/// The command that `NOPERM` names, as in an ACL.
fn missing_command(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("to run the '")?;
    rest.split_once('\'').map(|(command, _)| command)
}

/// The error as the server writes it.
fn text(error: &RedisError) -> String {
    let of = |code: &str, detail: Option<&str>| match detail {
        Some(detail) if code == "ERR" => detail.to_owned(),
        Some(detail) => format!("{code} {detail}"),
        None => code.to_owned(),
    };
    let first = error.clone().into_server_errors();
    if let Some((_, error)) = first.as_ref().and_then(|errors| errors.first()) {
        return of(error.code(), error.details());
    }
    match error.kind() {
        ErrorKind::Io => error.to_string(),
        // The text of the library shows the kind as Rust code.
        _ => error
            .detail()
            .map_or_else(|| error.category().to_owned(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, RedisError, Value};

    use super::*;

    /// An error as the server sends it.
    fn error(line: &str) -> RedisError {
        let parsed = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        parsed
            .and_then(Value::extract_error)
            .expect_err("an error of the server")
    }

    #[test]
    fn errors_are_explained_in_words() {
        for (line, words) in [
            (
                "NOPERM User gate has no permissions to run the 'evalsha' command",
                "the user lacks a right, +evalsha: NOPERM User gate",
            ),
            (
                "NOPERM this user has no permissions to run the 'cluster|slots' command",
                "the user lacks a right, +cluster|slots: ",
            ),
            (
                "NOPERM No permissions to access a key",
                "the user lacks a right: NOPERM No permissions",
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 0a, on @user_script:8.",
                "the user lacks a right: The user executing",
            ),
            (
                "ERR max number of clients reached",
                "the server has as many clients as maxclients allows: max",
            ),
            (
                "ERR Error running script (call to f_0a): @user_script:30: -OOM command not allowed when used memory > 'maxmemory'.",
                "the server's memory is full (maxmemory), so it refuses writes: ",
            ),
            (
                "ERR unknown command `SCRIPT`, with args beginning with: `LOAD`",
                "the server, or a proxy before it, does not have this command: ",
            ),
            ("ERR something new", "something new"),
        ] {
            let explained = explain(&error(line), "cache");
            assert!(explained.starts_with(words), "{explained}");
        }
        let parsing = RedisError::from((ErrorKind::Parse, "fails", "bad bytes".to_owned()));
        assert_eq!(explain(&parsing, "cache"), "bad bytes");
    }

    #[test]
    fn the_arguments_of_an_unknown_command_are_not_shown() {
        let line = "ERR unknown command 'AUTH', with args beginning with: 'gate' 'hunter2' ";
        let explained = explain(&error(line), "cache");
        assert!(explained.ends_with("unknown command 'AUTH'"), "{explained}");
    }

    #[test]
    fn a_word_within_a_text_is_not_a_code() {
        assert!(has_code(&error("READONLY You can't write"), "READONLY"));
        assert!(has_code(
            &error("ERR script: @user_script: 3: -READONLY You"),
            "READONLY"
        ));
        assert!(!has_code(&error("ERR the word READONLY"), "READONLY"));
    }
}
