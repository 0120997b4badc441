//! Connects to the first of several hosts that works.

use std::{collections::HashMap, fmt::Display, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use policies::Clock;
use tokio::{net::lookup_host, time::timeout};

use super::fault::Unreachable;

/// How long a host that failed is tried after all others.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// Limits the growing pauses of a host that fails repeatedly.
const LONGEST_PAUSE: Duration = Duration::from_secs(160);

/// How long a host may be silent before the next one is tried, too. Short, so that a store is used again soon after any of
/// its hosts returns.
const PATIENCE: Duration = Duration::from_millis(150);

/// Remembers which hosts failed recently, and tries them last.
pub(super) struct Hosts {
    clock: Arc<dyn Clock>,
    /// By name or address.
    failed: Mutex<HashMap<String, FailedHost>>,
}

#[derive(Clone, Copy)]
struct FailedHost {
    until: Duration,
    pause: Duration,
}

impl Hosts {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            failed: Mutex::default(),
        }
    }

    /// Tries the hosts until one works. The next one starts when a host fails, or when the latest has been silent for its
    /// share of the time, [`PATIENCE`] at most. The error is that of the host that failed last.
    pub(super) async fn first<H: Display, T>(
        &self,
        hosts: impl IntoIterator<Item = H>,
        within: Duration,
        attempt: impl AsyncFn(H, Duration) -> Result<T, Unreachable>,
    ) -> Result<T, Unreachable> {
        let ends = self.clock.elapsed() + within;
        let left = || ends.saturating_sub(self.clock.elapsed());
        let hosts = self.in_order(hosts);
        let share = within / u32::try_from(hosts.len().max(1)).unwrap_or(u32::MAX);
        let mut waiting = hosts.into_iter();
        let mut latest = None;
        let mut attempts = FuturesUnordered::new();
        let mut unreachable = Unreachable::NoHost;
        loop {
            if let Some((name, host)) = waiting.next() {
                latest = Some(name.clone());
                let (attempt, left) = (&attempt, left());
                attempts.push(async move { (name, timeout(left, attempt(host, left)).await) });
            }
            let result = if waiting.len() == 0 {
                attempts.next().await
            } else {
                match timeout(share.min(PATIENCE), attempts.next()).await {
                    Ok(result) => result,
                    Err(_) => {
                        if let Some(silent) = latest.take() {
                            self.record_failure(silent);
                        }
                        continue;
                    }
                }
            };
            let Some((name, result)) = result else {
                return Err(unreachable);
            };
            unreachable = match result {
                Ok(Ok(found)) => {
                    self.failed.lock().remove(&name);
                    return Ok(found);
                }
                Ok(Err(unreachable)) => unreachable,
                Err(_) => Unreachable::Timeout(name.clone()),
            };
            self.record_failure(name);
        }
    }

    /// Tries the addresses of `host`, as [`first`](Self::first) does.
    pub(super) async fn first_address<T>(
        &self,
        host: &str,
        port: u16,
        within: Duration,
        attempt: impl AsyncFn(SocketAddr, Duration) -> Result<T, Unreachable>,
    ) -> Result<T, Unreachable> {
        let ends = self.clock.elapsed() + within;
        let addresses = timeout(within, lookup_host((host, port))).await;
        let addresses = addresses.map_err(|_| Unreachable::Timeout(format!("DNS for {host}")))?;
        let addresses = addresses.map_err(|error| Unreachable::failed(host, error))?;
        let within = ends.saturating_sub(self.clock.elapsed());
        self.first(addresses, within, attempt).await
    }

    /// Makes others be tried before `host` for a while.
    pub(super) fn record_failure(&self, host: String) {
        let now = self.clock.elapsed();
        let mut failed = self.failed.lock();
        let pause = match failed.get(&host) {
            None => FIRST_PAUSE,
            Some(earlier) if earlier.until <= now => LONGEST_PAUSE.min(earlier.pause * 2),
            Some(earlier) => earlier.pause,
        };
        let until = now + pause;
        failed.insert(host, FailedHost { until, pause });
        // DNS answers change, so addresses that are no longer tried must be forgotten.
        failed.retain(|_, host| host.until + LONGEST_PAUSE > now);
    }

    /// Hosts in the order of the config, then those that failed recently, the earliest failure first. After its pause one
    /// caller tries a host in its normal place, while others still try it last until it works.
    fn in_order<H: Display>(&self, hosts: impl IntoIterator<Item = H>) -> Vec<(String, H)> {
        let now = self.clock.elapsed();
        let mut order = Vec::new();
        for host in hosts {
            let name = host.to_string();
            let failed = self.failed.lock().get(&name).copied();
            let until = match failed {
                Some(FailedHost { until, .. }) if until > now => until,
                Some(_) => {
                    self.record_failure(name.clone());
                    Duration::ZERO
                }
                None => Duration::ZERO,
            };
            order.push((until, name, host));
        }
        order.sort_by_key(|(until, ..)| *until);
        let hosts = order.into_iter().map(|(_, name, host)| (name, host));
        hosts.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;

    use super::*;

    /// A clock that only the test advances.
    #[derive(Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    /// Returns the hosts that are tried, of which only `good` works.
    async fn attempted(hosts: &Hosts, good: &str) -> Vec<&'static str> {
        let attempted = Mutex::new(Vec::new());
        let among = ["a", "b", "c"];
        let attempt = |host: &'static str, _| {
            attempted.lock().push(host);
            let is_good = host == good;
            async move {
                match host {
                    _ if is_good => Ok(()),
                    "a" => std::future::pending().await,
                    _ => Err(Unreachable::failed(host, "it fails")),
                }
            }
        };
        let within = Duration::from_millis(90);
        let found = hosts.first(among, within, attempt).await;
        assert_eq!(found.is_ok(), !good.is_empty());
        attempted.into_inner()
    }

    #[actix_web::test]
    async fn each_failure_of_a_host_doubles_its_pause_until_it_works() {
        let clock = Arc::<ManualClock>::default();
        let hosts = Hosts::new(clock.clone());
        let go = |seconds| clock.0.fetch_add(seconds, Ordering::Relaxed);
        assert_eq!(attempted(&hosts, "c").await, ["a", "b", "c"]);
        assert_eq!(attempted(&hosts, "c").await, ["c"]);
        go(9);
        assert_eq!(attempted(&hosts, "c").await, ["c"]);
        go(2);
        assert_eq!(attempted(&hosts, "c").await, ["a", "b", "c"]);
        go(18);
        assert_eq!(attempted(&hosts, "c").await, ["c"]);
        go(3);
        assert_eq!(attempted(&hosts, "a").await, ["a"]);
        assert_eq!(attempted(&hosts, "c").await, ["a", "c"]);
    }

    #[actix_web::test]
    async fn if_all_hosts_fail_all_are_tried_again() {
        let clock = Arc::<ManualClock>::default();
        let hosts = Hosts::new(clock.clone());
        assert_eq!(attempted(&hosts, "b").await, ["a", "b"]);
        clock.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(attempted(&hosts, "").await, ["b", "c", "a"]);
        clock.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(attempted(&hosts, "").await.len(), 3);
    }

    #[actix_web::test]
    async fn one_caller_at_a_time_tries_a_host_whose_pause_is_over() {
        let clock = Arc::<ManualClock>::default();
        let hosts = Hosts::new(clock.clone());
        assert_eq!(attempted(&hosts, "b").await, ["a", "b"]);
        clock.0.fetch_add(11, Ordering::Relaxed);
        let both = (attempted(&hosts, "b"), attempted(&hosts, "b"));
        let (one, other) = futures_util::future::join(both.0, both.1).await;
        assert_eq!(one, ["a", "b"]);
        assert_eq!(other, ["b"]);
    }
}
