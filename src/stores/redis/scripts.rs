//! The scripts that run on the server.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

use super::{connection::Connection, errors::is_refused_command};

type LazyScript = LazyLock<Script>;

pub(super) static LIMIT: LazyScript = LazyLock::new(|| Script::new(include_str!("limit.lua")));
pub(super) static RESERVE: LazyScript = LazyLock::new(|| Script::new(include_str!("reserve.lua")));
pub(super) static GIVE_BACK: LazyScript =
    LazyLock::new(|| Script::new(include_str!("give_back.lua")));

pub(super) static LEASE: LazyScript = LazyLock::new(|| Script::new(include_str!("lease.lua")));

/// A script on one key.
pub(super) struct Script {
    text: &'static str,
    /// The name that the server gives it.
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Sends the hash, and loads a script that the server does not know. If the server or a proxy before it refuses that,
    /// sends the whole script.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        key: &str,
        arguments: impl ToRedisArgs,
    ) -> RedisResult<T> {
        let by = |command: &str, script: &str| {
            let mut call = Cmd::new();
            call.arg(command).arg(script).arg(1).arg(key);
            call.arg(&arguments);
            call
        };
        let by_hash = by("EVALSHA", &self.hash);
        let whole = async |connection: &mut _| by("EVAL", self.text).query_async(connection).await;
        if connection.sends_whole_scripts() {
            let done = whole(connection).await;
            if done.as_ref().is_err_and(is_refused_command) {
                // The rights have changed.
                connection.send_whole_scripts(false);
            }
            return done;
        }
        let is_unknown = |kind| kind == ErrorKind::Server(ServerErrorKind::NoScript);
        let refused = match by_hash.query_async(connection).await {
            Err(error) if is_unknown(error.kind()) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(self.text);
                match load.exec_async(connection).await {
                    Ok(()) => match by_hash.query_async(connection).await {
                        // A proxy loaded it at another server.
                        Err(error) if is_unknown(error.kind()) => error,
                        done => return done,
                    },
                    Err(error) if error.code().is_some() => error,
                    Err(error) => return Err(error),
                }
            }
            Err(error) if is_refused_command(&error) => error,
            done => return done,
        };
        let done = whole(connection).await;
        match done {
            Err(error) if is_refused_command(&error) => Err(refused),
            Err(error) => Err(error),
            Ok(done) => {
                if is_refused_command(&refused) {
                    connection.send_whole_scripts(true);
                }
                Ok(done)
            }
        }
    }
}
