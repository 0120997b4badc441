//! The states of sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{PREFIX, RedisStore, hashed};
use crate::{
    stores::{
        fault::StoreFault,
        sessions::{SessionAction, SessionBackend},
    },
    telemetry::Operation,
};

impl SessionBackend for RedisStore {
    fn act<'a>(
        &'a self,
        key: &'a str,
        action: SessionAction,
    ) -> LocalBoxFuture<'a, Result<Option<String>, StoreFault>> {
        Box::pin(async move {
            let only_reads = action == SessionAction::Load;
            // Reading the names must not be enough to use a session.
            let name = format!("{PREFIX}:session:{}", hashed(key.as_bytes()));
            let mut command = redis::Cmd::new();
            match action {
                SessionAction::Load => command.arg("GET").arg(&name),
                SessionAction::Save { is_new, state, ttl } => {
                    let set = command.arg("SET").arg(&name).arg(state);
                    let only_if_there = (!is_new).then_some("XX");
                    set.arg("PX").arg(millis(ttl)).arg(only_if_there)
                }
                SessionAction::Extend(ttl) => command.arg("PEXPIRE").arg(&name).arg(millis(ttl)),
                SessionAction::Delete => command.arg("DEL").arg(&name),
            };
            let run = async |lane: &mut _| {
                if only_reads {
                    return command.query_async(lane).await;
                }
                command.exec_async(lane).await.map(|()| None)
            };
            self.ask(Operation::Session, Some(&name), only_reads, run)
                .await
        })
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
