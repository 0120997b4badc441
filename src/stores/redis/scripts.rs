//! The scripts that run on the server, their keys, and a probe that runs them.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::{FutureExt as _, ready, try_join, try_join_all};
use policies::{Counter, StoreUse};
use redis::{RedisResult, Script};

use super::connection::Connection;
use crate::{outbound::digest::digest_of, stores::shared_quotas::StoreClock};

type LazyScript = LazyLock<Script>;

pub(super) static LIMIT: LazyScript = LazyLock::new(|| Script::new(include_str!("limit.lua")));
pub(super) static RESERVE: LazyScript = LazyLock::new(|| Script::new(include_str!("reserve.lua")));
pub(super) static GIVE_BACK: LazyScript =
    LazyLock::new(|| Script::new(include_str!("give_back.lua")));

pub(super) static LEASE: LazyScript = LazyLock::new(|| Script::new(include_str!("lease.lua")));

pub(super) const PREFIX: &str = "imgwire-gate";

/// Includes the policy's name, so that an operator can find the counters of a policy.
pub(super) fn counter_key(kind: &str, counter: &Counter) -> String {
    let key = hash(&counter.key);
    format!("{PREFIX}:{kind}:{}:{key}", counter.policy)
}

pub(super) fn session_key(key: &str) -> String {
    format!("{PREFIX}:session:{}", hash(key))
}

pub(super) fn lease_key(name: &str) -> String {
    format!("{PREFIX}:lease:{name}")
}

/// Half of a SHA-256, in base64url.
fn hash(text: &str) -> String {
    let digest = digest_of(text.as_bytes());
    let (half, _) = digest.split_at(16);
    URL_SAFE_NO_PAD.encode(half)
}

const KEY_TTL_MS: u64 = 1000;

pub(super) struct Probe {
    pub(super) clock: StoreClock,
    pub(super) uses: Vec<StoreUse>,
}

impl Probe {
    /// Runs the same scripts and commands as the gate. This finds a missing permission, a full memory and a read-only
    /// server. The keys begin with `prefix`.
    pub(super) async fn run(&self, connection: &Connection, prefix: &str) -> RedisResult<()> {
        let probes = self.uses.iter().map(|wanted| {
            let (connection, key) = (connection.clone(), |end| format!("{prefix}:{end}"));
            match wanted {
                StoreUse::RateLimits => limit(connection, key("limit")).boxed_local(),
                StoreUse::Quotas => self.quota(connection, key("quota")).boxed_local(),
                StoreUse::Sessions => session(connection, key("session")).boxed_local(),
                StoreUse::Memberships => ready(Ok(())).boxed_local(),
            }
        });
        try_join_all(probes).await.map(drop)
    }

    /// Counts a unit and gives it back. Both scripts are sent together, in this order.
    async fn quota(&self, mut connection: Connection, key: String) -> RedisResult<()> {
        let mut reserve = RESERVE.key(&key);
        reserve.arg(0).arg(1).arg(u32::MAX).arg(KEY_TTL_MS).arg(1);
        let mut give_back = GIVE_BACK.key(&key);
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

/// Counts an attempt that is given back after a microsecond.
async fn limit(mut connection: Connection, key: String) -> RedisResult<()> {
    let mut limit = LIMIT.key(key);
    limit.arg(1).arg(1).arg(1);
    limit.invoke_async::<i64>(&mut connection).await.map(drop)
}

async fn session(mut connection: Connection, key: String) -> RedisResult<()> {
    let mut commands = redis::pipe();
    commands.cmd("SET").arg(&key).arg((1, "PX", KEY_TTL_MS));
    commands.cmd("GET").arg(&key);
    commands.cmd("PEXPIRE").arg(&key).arg(KEY_TTL_MS);
    commands.cmd("DEL").arg(&key);
    commands.exec_async(&mut connection).await
}
