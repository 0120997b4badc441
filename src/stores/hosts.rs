//! Several hosts, of which any one suffices.

use std::{
    collections::HashMap,
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use policies::Clock;
use tokio::{net::lookup_host, time::timeout};

use super::fault::Unreachable;

/// How long a host that failed, or was silent, is tried after all others.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// For a host that fails repeatedly.
const LONGEST_PAUSE: Duration = Duration::from_secs(160);

/// Remembers which hosts failed recently. They are tried last, and no host takes the time of another.
pub(super) struct Hosts {
    clock: Arc<dyn Clock>,
    /// By name or address.
    passed_over: Mutex<HashMap<String, PassedOver>>,
}

#[derive(Clone, Copy)]
struct PassedOver {
    until: Duration,
    pause: Duration,
}

impl Hosts {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            passed_over: Mutex::default(),
        }
    }

    /// Tries the hosts one after another until one works. Each may take an equal share of the remaining time. The error
    /// is that of the last host.
    pub(super) async fn first<H, T, F>(
        &self,
        hosts: impl IntoIterator<Item = H>,
        within: Duration,
        attempt: impl Fn(H, Duration) -> F,
    ) -> Result<T, Unreachable>
    where
        H: Display,
        F: Future<Output = Result<T, Unreachable>>,
    {
        let ends = self.clock.elapsed() + within;
        let hosts = self.in_order(hosts);
        let mut unreachable = Unreachable::NoHost;
        for (left, (name, host)) in (1..=hosts.len()).rev().zip(hosts) {
            let time = ends.saturating_sub(self.clock.elapsed());
            let share = time / u32::try_from(left).unwrap_or(u32::MAX);
            unreachable = match timeout(share, attempt(host, share)).await {
                Ok(Ok(found)) => {
                    self.passed_over().remove(&name);
                    return Ok(found);
                }
                Ok(Err(unreachable)) => unreachable,
                Err(_) => Unreachable::Silent(name.clone()),
            };
            self.pass_over(name);
        }
        Err(unreachable)
    }

    /// Tries the addresses of `host` one after another, as [`first`](Self::first) does.
    pub(super) async fn first_address<T, F>(
        &self,
        host: &str,
        port: u16,
        within: Duration,
        attempt: impl Fn(SocketAddr, Duration) -> F,
    ) -> Result<T, Unreachable>
    where
        F: Future<Output = Result<T, Unreachable>>,
    {
        let ends = self.clock.elapsed() + within;
        let addresses = timeout(within, lookup_host((host, port))).await;
        let addresses = addresses.map_err(|_| Unreachable::Silent(format!("DNS for {host}")))?;
        let addresses = addresses.map_err(|error| Unreachable::failed(host, error))?;
        let within = ends.saturating_sub(self.clock.elapsed());
        self.first(addresses, within, attempt).await
    }

    /// Tries a host after all others for a while.
    pub(super) fn pass_over(&self, host: String) {
        let now = self.clock.elapsed();
        let mut passed_over = self.passed_over();
        let earlier = passed_over.get(&host);
        let pause = earlier.map_or(FIRST_PAUSE, |earlier| {
            let is_over = earlier.until <= now;
            if is_over {
                earlier.pause * 2
            } else {
                earlier.pause
            }
        });
        let pause = pause.min(LONGEST_PAUSE);
        let until = now + pause;
        passed_over.insert(host, PassedOver { until, pause });
        // Addresses come and go with DNS, so forget those that are no longer tried.
        passed_over.retain(|_, host| host.until + LONGEST_PAUSE > now);
    }

    /// Hosts in the order of the config, then those that failed recently, the earliest failure first. After its pause a
    /// host gets one attempt, while others still skip it until it works.
    fn in_order<H: Display>(&self, hosts: impl IntoIterator<Item = H>) -> Vec<(String, H)> {
        let now = self.clock.elapsed();
        let mut order = Vec::new();
        for host in hosts {
            let name = host.to_string();
            let passed_over = self.passed_over().get(&name).copied();
            let until = match passed_over {
                Some(PassedOver { until, .. }) if until > now => until,
                Some(_) => {
                    self.pass_over(name.clone());
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

    fn passed_over(&self) -> MutexGuard<'_, HashMap<String, PassedOver>> {
        self.passed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;

    use super::*;

    /// A clock that moves only when told.
    #[derive(Default)]
    struct Steps(AtomicU64);

    impl Clock for Steps {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    /// The hosts that are tried until `good` works.
    async fn attempted(hosts: &Hosts, good: &str) -> Vec<&'static str> {
        let attempted = Mutex::new(Vec::new());
        let among = ["a", "b", "c"];
        let attempt = |host: &'static str, _| {
            attempted.lock().unwrap().push(host);
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
        attempted.into_inner().unwrap()
    }

    #[actix_web::test]
    async fn a_host_that_fails_is_passed_over_longer_each_time_until_it_works() {
        let clock = Arc::<Steps>::default();
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
        let clock = Arc::<Steps>::default();
        let hosts = Hosts::new(clock.clone());
        assert_eq!(attempted(&hosts, "b").await, ["a", "b"]);
        clock.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(attempted(&hosts, "").await, ["b", "c", "a"]);
        clock.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(attempted(&hosts, "").await.len(), 3);
    }

    #[actix_web::test]
    async fn one_caller_at_a_time_tries_a_host_whose_pause_is_over() {
        let clock = Arc::<Steps>::default();
        let hosts = Hosts::new(clock.clone());
        assert_eq!(attempted(&hosts, "b").await, ["a", "b"]);
        clock.0.fetch_add(11, Ordering::Relaxed);
        let both = (attempted(&hosts, "b"), attempted(&hosts, "b"));
        let (one, other) = futures_util::future::join(both.0, both.1).await;
        assert_eq!(one, ["a", "b"]);
        assert_eq!(other, ["b"]);
    }
}
