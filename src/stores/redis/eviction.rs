//! What a server says of itself: whether it may evict keys, how many it has evicted, and whether it is still the same.

use std::{sync::Arc, time::Duration};

use actix_web::rt;
use parking_lot::Mutex;
use redis::RedisResult;

use super::connection::Connection;
use crate::stores::{health::Health, remark::Remark};

/// How often the gate reads it.
const PERIOD: Duration = Duration::from_secs(5);

/// While keys are evicted, the log says so at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Runs `observe` in the background while the store is open.
pub(super) fn observe_repeatedly<S: 'static>(
    store: &Arc<S>,
    observe: impl AsyncFn(&Arc<S>) + 'static,
) {
    let store = Arc::downgrade(store);
    rt::spawn(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Some(store) = store.upgrade() else {
                return;
            };
            observe(&store).await;
        }
    });
}

/// What `INFO` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    /// Changes when the server restarts.
    run_id: Option<String>,
    evicted_keys: u64,
    /// Of the memory, in bytes. 0 is none.
    limit: u64,
    policy: Option<String>,
}

impl ServerInfo {
    /// Asks for three sections, because versions before 7 take only one at a time.
    pub(super) async fn read(connection: &mut Connection) -> RedisResult<Self> {
        let mut sections = redis::pipe();
        for section in ["memory", "stats", "server"] {
            sections.cmd("INFO").arg(section);
        }
        let sections: Vec<String> = sections.query_async(connection).await?;
        Ok(Self::parse(&sections.concat()))
    }

    fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            match line.trim_end().split_once(':') {
                Some(("maxmemory", limit)) => info.limit = limit.parse().unwrap_or_default(),
                Some(("maxmemory_policy", policy)) => info.policy = Some(policy.to_owned()),
                Some(("evicted_keys", keys)) => {
                    info.evicted_keys = keys.parse().unwrap_or_default();
                }
                Some(("run_id", id)) => info.run_id = Some(id.to_owned()),
                _ => {}
            }
        }
        info
    }

    /// The policy by which the server may evict the gate's keys, all of which expire.
    fn eviction_policy(&self) -> Option<&str> {
        let policy = self.policy.as_deref()?;
        (self.limit > 0 && policy != "noeviction").then_some(policy)
    }
}

/// What the gate last heard of a server.
#[derive(Default)]
pub(super) struct Observed(Mutex<Option<Observation>>);

struct Observation {
    info: ServerInfo,
    /// Keys that were evicted since the log last said so, and when that was.
    unreported: u64,
    reported_at: Option<Duration>,
}

impl Observed {
    /// Logs what changed. Returns how many keys were evicted since the last time.
    pub(super) fn record(&self, info: ServerInfo, health: &Health, now: Duration) -> u64 {
        let mut observed = self.0.lock();
        let earlier = observed.take();
        let (store, node) = (health.store(), health.node());
        let is_same = |earlier: &Observation| earlier.info.run_id == info.run_id;
        if earlier.as_ref().is_some_and(|earlier| !is_same(earlier)) {
            let reason = "it restarted, or another server took its place; counters and sessions that it had not saved or \
                          replicated are lost";
            tracing::warn!(%store, node, reason, "the store is another server process");
        }
        let policy = info.eviction_policy();
        let before = earlier.as_ref().and_then(|it| it.info.eviction_policy());
        match policy {
            _ if policy == before => {}
            Some(policy) => {
                let reason = may_evict(policy);
                tracing::warn!(%store, node, reason, "the store may lose counters");
            }
            None => tracing::info!(%store, node, "the store no longer evicts keys"),
        }
        // A server counts from zero when it starts.
        let counted = earlier.as_ref().filter(|earlier| is_same(earlier));
        let counted = counted.map(|earlier| earlier.info.evicted_keys);
        let evicted = match counted {
            Some(counted) => info.evicted_keys.saturating_sub(counted),
            None => 0,
        };
        let (unreported, reported_at) =
            earlier.map_or((0, None), |it| (it.unreported, it.reported_at));
        let mut next = Observation {
            info,
            unreported: unreported + evicted,
            reported_at,
        };
        let is_due = next.reported_at.is_none_or(|at| now >= at + REPORT_EVERY);
        if next.unreported > 0 && is_due {
            let count = next.unreported;
            let reason = "limits and quotas whose counters are gone start again at zero";
            tracing::warn!(%store, node, count, reason, "the store evicted keys");
            next.unreported = 0;
            next.reported_at = Some(now);
        }
        *observed = Some(next);
        evicted
    }

    pub(super) fn has_answered(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(super) fn remark(&self) -> Option<Remark> {
        let observed = self.0.lock();
        let info = &observed.as_ref()?.info;
        let mut text = may_evict(info.eviction_policy()?);
        if info.evicted_keys > 0 {
            text += &format!(
                "; it has evicted {} keys since it started",
                info.evicted_keys
            );
        }
        Some(Remark {
            part: "eviction",
            text,
            remedy: Some(
                "set `maxmemory-policy noeviction` in the server's config, or give the gate a server of its own",
            ),
            is_degraded: true,
        })
    }
}

fn may_evict(policy: &str) -> String {
    format!(
        "the server may evict keys (maxmemory-policy {policy}), so limits and quotas can be exceeded"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_with_a_limit_and_a_policy_evicts() {
        let info = |text: &str| ServerInfo::parse(text);
        let limited = "# Memory\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(info(limited).eviction_policy(), Some("allkeys-lru"));
        let volatile = "maxmemory:1000\r\nmaxmemory_policy:volatile-ttl\r\n";
        assert_eq!(info(volatile).eviction_policy(), Some("volatile-ttl"));
        for harmless in [
            "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n",
            "maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n",
            "maxmemory:1000\r\n",
            "",
        ] {
            assert_eq!(info(harmless).eviction_policy(), None, "{harmless}");
        }
        let counted = info("# Stats\r\nevicted_keys:12\r\n# Server\r\nrun_id:0a\r\n");
        assert_eq!(counted.evicted_keys, 12);
        assert_eq!(counted.run_id.as_deref(), Some("0a"));
    }
}
