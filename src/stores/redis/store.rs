//! Runs rate limits, quotas and sessions on a server or a cluster.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use policies::{AttemptResult, BoxFuture, Counter, Fault, Pass, Rate, RateLimitStore, Window};
use redis::{RedisResult, Value};

use super::{
    cluster::Cluster,
    connection::Connection,
    keys::Keys,
    probe::Probe,
    scripts::{GIVE_BACK, LIMIT, RESERVE},
    server::{Client, Reply, Server},
    url::{RedisUrl, Topology},
};
use crate::{
    stores::{
        fault::StoreFault,
        health::{Backend as _, Health},
        kind::{OpenOptions, SessionAction, SessionBackend},
        retention::retention_of,
        shared_quotas::{Granted, SharedCounters, StoreClock},
    },
    telemetry::{Operation, StoreMetrics},
};

pub(super) struct RedisStore {
    pub(super) servers: Servers,
    pub(super) clock: StoreClock,
    pub(super) keys: Keys,
    metrics: StoreMetrics,
}

pub(super) enum Servers {
    /// Possibly the primary that Sentinels name.
    Single(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl RedisStore {
    /// Connects on the first operation.
    pub(super) fn new(url: &RedisUrl, options: &OpenOptions<'_>) -> Self {
        let clock = StoreClock::new(options.context.clock.clone());
        let probe = Probe {
            clock: clock.clone(),
            uses: options.uses.to_vec(),
        };
        let keys = Keys {
            prefix: options.prefix.to_owned(),
        };
        let client = Arc::new(Client::new(url, options, probe, keys.clone()));
        let servers = match &url.topology {
            Topology::Single(endpoint) => {
                Servers::Single(Server::new(endpoint.clone(), client, options.health()))
            }
            Topology::Cluster(seeds) => {
                Servers::Cluster(Cluster::new(seeds.clone(), client, options))
            }
        };
        Self {
            servers,
            clock,
            keys,
            metrics: options.metrics("redis"),
        }
    }

    pub(super) fn health(&self) -> &Health {
        match &self.servers {
            Servers::Single(server) => server.health(),
            Servers::Cluster(cluster) => cluster.health(),
        }
    }

    /// Runs one operation within its time limit. In a cluster, the node that has `key` runs it, or any node if there is
    /// no key.
    pub(super) async fn run<T>(
        &self,
        name: Operation,
        key: Option<&str>,
        read_only: bool,
        operation: impl AsyncFn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let done = async {
            match &self.servers {
                Servers::Cluster(cluster) => cluster.run(key, read_only, &operation).await,
                Servers::Single(server) => {
                    let within = server.health().timeout();
                    match server.run(read_only, false, within, &operation).await? {
                        Reply::Done(done) => Ok(done),
                        Reply::Redirect(_) => Err(StoreFault::Refused(
                            "the server belongs to a cluster; write `redis+cluster://`".to_owned(),
                        )),
                    }
                }
            }
        };
        self.metrics.measure(name, done).await
    }
}

impl RateLimitStore for RedisStore {
    fn take(&self, counter: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        Box::pin(async move {
            let key = self.keys.counter("limit", &counter);
            let counts = u8::from(pass != Pass::Preview);
            let arguments = (rate.interval().as_micros(), rate.burst().get(), counts);
            let take =
                async |connection: &mut _| LIMIT.run::<i64>(connection, &key, arguments).await;
            let read_only = pass == Pass::Preview;
            let back_in = self
                .run(Operation::Limit, Some(&key), read_only, take)
                .await;
            let back_in = back_in.map_err(|fault| self.health().fault(fault))?;
            let resets_in = Duration::from_micros(back_in.unsigned_abs());
            Ok(if back_in < 0 {
                rate.denied(resets_in)
            } else {
                rate.allowed(resets_in)
            })
        })
    }
}

/// Reads a stored counter: three doubles.
fn parse_counter(bytes: &[u8]) -> Result<(u64, Window), StoreFault> {
    // A double holds whole numbers exactly.
    let (doubles, _) = bytes.as_chunks::<8>();
    let numbers = doubles
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes) as i64);
    let [start, end, used] = numbers.collect::<Vec<_>>()[..] else {
        return Err(StoreFault::Refused(
            "the stored counter is invalid".to_owned(),
        ));
    };
    let used = u64::try_from(used).unwrap_or_default();
    Ok((used, parse_window(start, end)?))
}

/// From milliseconds.
fn parse_window(start: i64, end: i64) -> Result<Window, StoreFault> {
    let time = |millis| {
        let time = Timestamp::from_millisecond(millis);
        time.map_err(|_| StoreFault::Refused(format!("the stored time {millis} is invalid")))
    };
    Ok(Window {
        start: time(start)?,
        end: time(end)?,
    })
}

impl SharedCounters for Arc<RedisStore> {
    fn fault(&self, source: StoreFault) -> Fault {
        self.health().fault(source)
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    async fn read_time(&self) -> Result<(), StoreFault> {
        let command = redis::cmd("TIME");
        let time = async |connection: &mut _| command.query_async::<(i64, i64)>(connection).await;
        let (seconds, micros) = self.run(Operation::Time, None, true, time).await?;
        self.clock.report(seconds * 1_000_000 + micros);
        Ok(())
    }

    async fn reserve(
        &self,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault> {
        let (start, end) = (window.start.as_millisecond(), window.end.as_millisecond());
        let now = self.clock.now().unwrap_or(window.start);
        let ttl = retention_of(window, now).as_millis();
        let wants_time = u8::from(self.clock.is_stale());
        let key = self.keys.counter("quota", counter);
        let arguments = (start, end, limit, ttl, wants_time);
        let reserve =
            async |connection: &mut _| RESERVE.run::<Value>(connection, &key, arguments).await;
        let reserved = self
            .run(Operation::Reserve, Some(&key), false, reserve)
            .await?;
        if let Value::Int(used) = reserved {
            let used = u64::try_from(used).ok().filter(|used| *used > 0);
            return Ok(Granted { used, window });
        }
        // The counter's window may differ from the requested one.
        let reserved = redis::from_redis_value::<(u64, i64, i64, i64, i64)>(reserved);
        let (used, start, end, seconds, micros) =
            reserved.map_err(|_| StoreFault::Refused("the answer is no counter".to_owned()))?;
        self.clock.report(seconds * 1_000_000 + micros);
        Ok(Granted {
            used: (used > 0).then_some(used),
            window: parse_window(start, end)?,
        })
    }

    async fn read(&self, counter: &Counter) -> Result<Option<(u64, Window)>, StoreFault> {
        let key = self.keys.counter("quota", counter);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let read = async |connection: &mut _| get.query_async::<Option<Vec<u8>>>(connection).await;
        let row = self.run(Operation::Look, Some(&key), true, read).await?;
        row.map(|row| parse_counter(&row)).transpose()
    }

    async fn give_back(&self, counter: &Counter, window: Option<Window>) -> Result<(), StoreFault> {
        let (start, units) = match window {
            Some(window) => (window.start.as_millisecond(), "1"),
            None => (0, "all"),
        };
        let key = self.keys.counter("quota", counter);
        let give_back =
            async |connection: &mut _| GIVE_BACK.run(connection, &key, (start, units)).await;
        self.run(Operation::GiveBack, Some(&key), false, give_back)
            .await
    }
}

impl SessionBackend for RedisStore {
    fn act<'a>(
        &'a self,
        key: &'a str,
        action: SessionAction,
    ) -> LocalBoxFuture<'a, Result<Option<String>, StoreFault>> {
        Box::pin(async move {
            let read_only = action == SessionAction::Load;
            let name = self.keys.session(key);
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

fn millis(ttl: Duration) -> u128 {
    ttl.as_millis().max(1)
}
