//! Tests whether a server does what the gate needs, and names the rights that the user lacks.

use futures_util::future::{FutureExt as _, join_all, ready, try_join, try_join_all};
use policies::StoreUse;
use redis::{Cmd, RedisResult};

use super::{
    connection::Connection,
    errors::is_missing_right,
    scripts::{GIVE_BACK, LIMIT, RESERVE},
};
use crate::stores::shared_quotas::StoreClock;

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
                StoreUse::Memberships | StoreUse::Uploads => ready(Ok(())).boxed_local(),
            }
        });
        try_join_all(probes).await.map(drop)
    }

    /// Counts a unit and gives it back. Both scripts are sent together, in this order.
    async fn quota(&self, mut connection: Connection, key: String) -> RedisResult<()> {
        let mut second = connection.clone();
        let (reserved, ()) = try_join(
            RESERVE.run::<(u64, i64, i64, i64, i64)>(
                &mut connection,
                &key,
                (0, 1, u32::MAX, KEY_TTL_MS, 1),
            ),
            GIVE_BACK.run(&mut second, &key, (0, 1)),
        )
        .await?;
        let (.., seconds, micros) = reserved;
        self.clock.report(seconds * 1_000_000 + micros);
        Ok(())
    }

    /// Names the rights that the user lacks, as an ACL writes them. The scripts' own errors do not name a command, so this
    /// runs each command by itself, on a key that begins with `prefix`.
    pub(super) async fn missing_rights(
        &self,
        connection: &Connection,
        prefix: &str,
        pattern: &str,
    ) -> Vec<String> {
        let key = format!("{prefix}:right");
        let is_for = |wanted: &[StoreUse]| self.uses.iter().any(|used| wanted.contains(used));
        let mut commands = vec![("+get", vec!["GET", &key])];
        commands.push(("+set", vec!["SET", &key, "", "PX", "1"]));
        let counts = is_for(&[StoreUse::Quotas, StoreUse::RateLimits]);
        if counts {
            commands.push(("+time", vec!["TIME"]));
            commands.push(("+evalsha", vec!["EVALSHA", UNKNOWN_SCRIPT, "0"]));
            commands.push(("+script|load", vec!["SCRIPT", "LOAD", EMPTY_SCRIPT]));
            commands.push(("+eval", vec!["EVAL", EMPTY_SCRIPT, "0"]));
        }
        if is_for(&[StoreUse::Sessions]) {
            commands.push(("+del", vec!["DEL", &key]));
            commands.push(("+pexpire", vec!["PEXPIRE", &key, "1"]));
        }
        let mut key_is_refused = false;
        let tried = commands.iter().map(async |(right, words)| {
            let mut command = Cmd::new();
            for word in words {
                command.arg(*word);
            }
            let tried = command.exec_async(&mut connection.clone()).await;
            let refused = tried.err().filter(is_missing_right)?;
            Some((*right, is_about_keys(&refused.to_string())))
        });
        let mut missing = Vec::new();
        for (right, is_about_keys) in join_all(tried).await.into_iter().flatten() {
            if is_about_keys {
                key_is_refused = true;
            } else {
                missing.push(right.to_owned());
            }
        }
        // A user who may send whole scripts needs no other right to run them.
        if missing.iter().any(|right| right == "+eval") {
            missing.retain(|right| right != "+eval");
        } else {
            missing.retain(|right| right != "+evalsha" && right != "+script|load");
        }
        if key_is_refused {
            missing.push(format!("~{pattern}:*"));
        }
        missing
    }
}

const UNKNOWN_SCRIPT: &str = "0000000000000000000000000000000000000000";
const EMPTY_SCRIPT: &str = "return 1";

/// Versions differ in the rest: "No permissions to access a key", "no permissions to access one of the keys".
fn is_about_keys(text: &str) -> bool {
    text.contains("to access ")
}

/// Counts an attempt that is given back after a microsecond.
async fn limit(mut connection: Connection, key: String) -> RedisResult<()> {
    let taken = LIMIT.run::<i64>(&mut connection, &key, (1, 1, 1));
    taken.await.map(drop)
}

async fn session(mut connection: Connection, key: String) -> RedisResult<()> {
    let mut commands = redis::pipe();
    commands.cmd("SET").arg(&key).arg((1, "PX", KEY_TTL_MS));
    commands.cmd("GET").arg(&key);
    commands.cmd("PEXPIRE").arg(&key).arg(KEY_TTL_MS);
    commands.cmd("DEL").arg(&key);
    commands.exec_async(&mut connection).await
}
