//! The states of sessions.

use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::{Asked, PREFIX, RedisStore, hashed};
use crate::{
    stores::{
        fault::StoreFault,
        sessions::{SessionBackend, SessionFuture, Write},
    },
    telemetry::Operation,
};

impl RedisStore {
    /// Runs a command on the name of a session.
    async fn session<T: FromRedisValue>(
        &self,
        command: &str,
        only_reads: bool,
        session: &str,
        complete: impl FnOnce(&mut Cmd),
    ) -> Result<T, StoreFault> {
        // Whoever reads the names cannot come in with them.
        let name = format!("{PREFIX}:session:{}", hashed(session.as_bytes()));
        let mut command = redis::cmd(command);
        command.arg(&name);
        complete(&mut command);
        let run = async |lane: &mut _| command.query_async::<T>(lane).await;
        let asked = Asked {
            operation: Operation::Session,
            key: Some(&name),
            only_reads,
        };
        self.ask(asked, run).await
    }
}

impl SessionBackend for RedisStore {
    fn load<'a>(&'a self, key: &'a str) -> SessionFuture<'a, Option<String>> {
        Box::pin(self.session("GET", true, key, |_| {}))
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        state: String,
        ttl: Duration,
        write: Write,
    ) -> SessionFuture<'a, ()> {
        Box::pin(self.session("SET", false, key, move |set| {
            set.arg(state).arg("PX").arg(millis(ttl));
            if write == Write::Existing {
                set.arg("XX");
            }
        }))
    }

    fn extend<'a>(&'a self, key: &'a str, ttl: Duration) -> SessionFuture<'a, ()> {
        Box::pin(self.session("PEXPIRE", false, key, move |expire| {
            expire.arg(millis(ttl));
        }))
    }

    fn delete<'a>(&'a self, key: &'a str) -> SessionFuture<'a, ()> {
        Box::pin(self.session("DEL", false, key, |_| {}))
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
