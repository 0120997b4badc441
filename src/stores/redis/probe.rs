//! Probes a server with the gate's own operations, on keys that only probes use.

use std::sync::Arc;

use futures_util::future::{FutureExt as _, ready, try_join, try_join_all};
use policies::StoreUse;
use redis::RedisResult;

use super::{connection::Connection, scripts::Scripts};
use crate::stores::store_clock::StoreClock;

const KEY_TTL_MS: u64 = 1000;

pub(super) struct Probe {
    pub(super) scripts: Arc<Scripts>,
    pub(super) clock: StoreClock,
    pub(super) uses: Vec<StoreUse>,
}

impl Probe {
    /// Runs the same scripts and commands as the gate. This finds a missing permission, a full memory and a read-only
    /// server. The keys begin with `prefix`.
    pub(super) async fn run(&self, connection: &Connection, prefix: &str) -> RedisResult<()> {
        let probes = self.uses.iter().map(|wanted| {
            let connection = connection.clone();
            match wanted {
                StoreUse::RateLimits => self
                    .limit(connection, format!("{prefix}:limit"))
                    .boxed_local(),
                StoreUse::Quotas => self
                    .quota(connection, format!("{prefix}:quota"))
                    .boxed_local(),
                StoreUse::Sessions => {
                    session(connection, format!("{prefix}:session")).boxed_local()
                }
                StoreUse::Memberships => ready(Ok(())).boxed_local(),
            }
        });
        try_join_all(probes).await.map(drop)
    }

    /// Counts an attempt that is given back after a microsecond.
    async fn limit(&self, mut connection: Connection, key: String) -> RedisResult<()> {
        let mut limit = self.scripts.limit.key(key);
        limit.arg(1).arg(1).arg(1);
        limit.invoke_async::<i64>(&mut connection).await.map(drop)
    }

    /// Counts a unit and gives it back. Both scripts are sent together, in this order.
    async fn quota(&self, mut connection: Connection, key: String) -> RedisResult<()> {
        let mut reserve = self.scripts.reserve.key(&key);
        reserve.arg(0).arg(1).arg(u32::MAX).arg(KEY_TTL_MS).arg(1);
        let mut give_back = self.scripts.give_back.key(&key);
        give_back.arg(0).arg(1);
        let mut second = connection.clone();
        let (reserved, ()) = try_join(
            reserve.invoke_async::<(u64, i64, i64, i64, i64)>(&mut connection),
            give_back.invoke_async(&mut second),
        )
        .await?;
        let (.., seconds, micros) = reserved;
        self.clock.report(seconds * 1_000_000 + micros);
        Ok(())
    }
}

async fn session(mut connection: Connection, key: String) -> RedisResult<()> {
    let mut commands = redis::pipe();
    commands
        .cmd("SET")
        .arg(&key)
        .arg(1)
        .arg("PX")
        .arg(KEY_TTL_MS);
    commands.cmd("GET").arg(&key);
    commands.cmd("PEXPIRE").arg(&key).arg(KEY_TTL_MS);
    commands.cmd("DEL").arg(&key);
    commands.exec_async(&mut connection).await
}
