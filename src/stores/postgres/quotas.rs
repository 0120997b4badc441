//! Quotas in PostgreSQL (13 or later).
//!
//! Concurrent reservations share one statement and one commit.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use policies::{Counter, Fault, Window};

use super::{
    batch::{Action, key},
    batcher::Batcher,
    connect::{Connector, Session},
    error::{fault, write_fault},
    statements::Statements,
    time::timestamp,
    url::PostgresUrl,
};
use crate::{
    stores::{
        backend::Backend,
        connection_cache::ConnectionCache,
        fault::{StoreFault, Unreachable},
        health::Health,
        kind::OpenOptions,
        shared_quotas::{Granted, SharedCounters},
        store_clock::StoreClock,
    },
    telemetry::{Operation, StoreMetrics},
};

pub(super) struct Counters {
    pub(super) health: Health,
    connector: Connector,
    connections: ConnectionCache<Arc<Batcher>>,
    clock: StoreClock,
    metrics: StoreMetrics,
}

impl Counters {
    /// Connects on the first operation, and then creates missing tables.
    pub(super) fn new(url: &PostgresUrl, options: &OpenOptions<'_>) -> Self {
        Self {
            connector: Connector::new(url, options),
            connections: ConnectionCache::default(),
            health: options.health(),
            clock: StoreClock::new(options.context.clock.clone()),
            metrics: options.metrics("postgresql"),
        }
    }

    /// Runs one operation on this thread's connection, within its time limit.
    pub(super) async fn run_on_connection<T>(
        self: &Arc<Self>,
        name: Operation,
        read_only: bool,
        operation: impl AsyncFn(Arc<Batcher>) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let timeout = self.health.timeout();
        let connect = async || {
            // Shorter than the operation's limit, because this error names the host.
            let statements = self.connect(timeout * 9 / 10).await?;
            Ok(Arc::new(Batcher::new(statements, timeout)))
        };
        let run = async |batcher: Arc<Batcher>| {
            if batcher.client().is_closed() {
                return Err(StoreFault::Unsent);
            }
            operation(batcher).await
        };
        let done = self.connections.run(self, timeout, read_only, connect, run);
        self.metrics.measure(name, done).await
    }

    pub(super) async fn connect(&self, within: Duration) -> Result<Statements, Unreachable> {
        let set_up = |session: Session| {
            Statements::prepare(session, self.health.timeout(), self.clock.clone())
        };
        self.connector.connect(within, set_up).await
    }
}

impl Backend for Counters {
    fn health(&self) -> &Health {
        &self.health
    }

    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let statements = self.connect(within).await?;
            let probed = statements.probe().await;
            probed.map_err(|error| write_fault(&error))
        })
    }
}

impl SharedCounters for Counters {
    fn fault(&self, source: StoreFault) -> Fault {
        self.health.fault(source)
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    /// A new connection reads the time when it is opened.
    async fn read_time(self: &Arc<Self>) -> Result<(), StoreFault> {
        self.run_on_connection(Operation::Time, true, async |_| Ok(()))
            .await
    }

    async fn reserve(
        self: &Arc<Self>,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault> {
        let action = Action::Reserve { limit };
        let reserve = async |batcher: Arc<Batcher>| batcher.send(action, counter, window).await;
        self.run_on_connection(Operation::Reserve, false, reserve)
            .await
    }

    async fn read(
        self: &Arc<Self>,
        counter: &Counter,
    ) -> Result<Option<(u64, Window)>, StoreFault> {
        const READ: &str = "select window_start, window_end, used from imgwire_gate.quota \
                            where policy = $1 and key = $2";
        let (policy, key) = (counter.policy.as_str(), key(counter));
        let read = async |batcher: Arc<Batcher>| {
            let row = batcher.client().query_opt(READ, &[&policy, &key]).await;
            row.map_err(|error| fault(&error))
        };
        let row = self.run_on_connection(Operation::Look, true, read).await?;
        Ok(row.map(|row| {
            let window = Window {
                start: timestamp(row.get(0)),
                end: timestamp(row.get(1)),
            };
            let used = u64::try_from(row.get::<_, i64>(2)).unwrap_or_default();
            (used, window)
        }))
    }

    async fn give_back(
        self: &Arc<Self>,
        counter: &Counter,
        window: Option<Window>,
    ) -> Result<(), StoreFault> {
        const CLEAR: &str = "update imgwire_gate.quota set used = 0 where policy = $1 and key = $2";
        let give_back = async |batcher: Arc<Batcher>| {
            if let Some(window) = window {
                let given_back = batcher.send(Action::GiveBack, counter, window).await;
                return given_back.map(drop);
            }
            let (policy, key) = (counter.policy.as_str(), key(counter));
            let cleared = batcher.client().execute(CLEAR, &[&policy, &key]).await;
            cleared.map(drop).map_err(|error| write_fault(&error))
        };
        self.run_on_connection(Operation::GiveBack, false, give_back)
            .await
    }
}
