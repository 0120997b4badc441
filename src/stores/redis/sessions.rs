//! Sessions.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{keys::session_key, store::RedisStore};
use crate::{
    stores::{
        fault::StoreFault,
        ports::{SessionAction, SessionBackend},
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
            let read_only = action == SessionAction::Load;
            // The hash ensures that the names of keys do not suffice to use a session.
            let name = session_key(key);
            let mut command = redis::Cmd::new();
            match action {
                SessionAction::Load => command.arg("GET").arg(&name),
                SessionAction::Save { is_new, state, ttl } => {
                    let set = command.arg("SET").arg(&name).arg(state);
                    let only_if_exists = (!is_new).then_some("XX");
                    set.arg("PX").arg(millis(ttl)).arg(only_if_exists)
                }
                SessionAction::Extend(ttl) => command.arg("PEXPIRE").arg(&name).arg(millis(ttl)),
                SessionAction::Delete => command.arg("DEL").arg(&name),
            };
            let run = async |connection: &mut _| {
                if read_only {
                    return command.query_async(connection).await;
                }
                command.exec_async(connection).await.map(|()| None)
            };
            self.run(Operation::Session, Some(&name), read_only, run)
                .await
        })
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
