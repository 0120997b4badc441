//! What a probe tests on a server: all operations of the gate, on keys of its own.

use std::sync::Arc;

use futures_util::future::{FutureExt as _, ready, try_join, try_join_all};
use policies::StoreUse;
use redis::RedisResult;

use super::{Scripts, connection::Lane};
use crate::stores::store_clock::StoreClock;

const KEPT_MS: u64 = 1000;

pub(super) struct Trial {
    pub(super) scripts: Arc<Scripts>,
    pub(super) clock: StoreClock,
    pub(super) uses: Vec<StoreUse>,
}

impl Trial {
    /// Runs the same scripts and commands as the gate, so that a missing permission, a full memory or a read-only
    /// server shows. The keys begin with `prefix`.
    pub(super) async fn run(&self, lane: &Lane, prefix: &str) -> RedisResult<()> {
        let trials = self.uses.iter().map(|wanted| match wanted {
            StoreUse::RateLimits => self
                .limit(lane.clone(), format!("{prefix}:limit"))
                .boxed_local(),
            StoreUse::Quotas => self
                .quota(lane.clone(), format!("{prefix}:quota"))
                .boxed_local(),
            StoreUse::Sessions => session(lane.clone(), format!("{prefix}:session")).boxed_local(),
            StoreUse::Memberships => ready(Ok(())).boxed_local(),
        });
        try_join_all(trials).await.map(drop)
    }

    /// Counts an attempt that returns after a microsecond.
    async fn limit(&self, mut lane: Lane, key: String) -> RedisResult<()> {
        let mut limit = self.scripts.limit.key(key);
        limit.arg(1).arg(1).arg(1);
        limit.invoke_async::<i64>(&mut lane).await.map(drop)
    }

    /// Counts a unit and gives it back. Both commands are sent together, in this order.
    async fn quota(&self, mut lane: Lane, key: String) -> RedisResult<()> {
        let mut reserve = self.scripts.reserve.key(&key);
        reserve.arg(0).arg(1).arg(u32::MAX).arg(KEPT_MS).arg(1);
        let mut give_back = self.scripts.give_back.key(&key);
        give_back.arg(0).arg(1);
        let mut second = lane.clone();
        let (reserved, ()) = try_join(
            reserve.invoke_async::<(u64, i64, i64, i64, i64)>(&mut lane),
            give_back.invoke_async(&mut second),
        )
        .await?;
        let (.., seconds, micros) = reserved;
        self.clock.heard(seconds * 1_000_000 + micros);
        Ok(())
    }
}

async fn session(mut lane: Lane, key: String) -> RedisResult<()> {
    let mut commands = redis::pipe();
    commands.cmd("SET").arg(&key).arg(1).arg("PX").arg(KEPT_MS);
    commands.cmd("GET").arg(&key);
    commands.cmd("PEXPIRE").arg(&key).arg(KEPT_MS);
    commands.cmd("DEL").arg(&key);
    commands.exec_async(&mut lane).await
}
