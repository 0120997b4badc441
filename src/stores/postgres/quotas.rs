//! Quotas in PostgreSQL (13 or later).
//!
//! Concurrent reservations share one statement and one commit.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use policies::{Counter, Fault, StoreUse, Window};
use tokio_postgres::{Row, types::Type};

use super::{
    batch::{Action, Batcher, key},
    connect::{Connector, Session, fault, write_fault},
    statements::{Sql, Statements, system_time, window},
    url::PostgresUrl,
};
use crate::{
    stores::{
        connections::ConnectionCache,
        fault::{StoreFault, Unreachable},
        health::{Backend, Health},
        kind::OpenOptions,
        remark::Remark,
        retention::{CleanupSchedule, PAGE, RETENTION},
        shared_quotas::{Granted, SharedCounters, StoreClock},
    },
    telemetry::{Operation, StoreMetrics},
};

pub(super) struct Counters {
    pub(super) health: Health,
    /// Without memberships.
    uses: Vec<StoreUse>,
    connector: Connector,
    connections: ConnectionCache<Arc<Batcher>>,
    clock: StoreClock,
    metrics: StoreMetrics,
}

impl Counters {
    /// Connects on the first operation, and then creates missing tables.
    pub(super) fn new(url: &PostgresUrl, options: &OpenOptions<'_>) -> Self {
        Self {
            uses: options.uses.to_vec(),
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
            if batcher.is_closed() {
                return Err(StoreFault::Unsent);
            }
            operation(batcher).await
        };
        let done = self.connections.run(self, timeout, read_only, connect, run);
        self.metrics.measure(name, done).await
    }

    pub(super) async fn connect(&self, within: Duration) -> Result<Statements, Unreachable> {
        let set_up = async |session: Session| {
            Statements::prepare(session, self.health.timeout(), self.clock.clone()).await
        };
        self.connector.connect(within, set_up).await
    }
}

impl Backend for Counters {
    fn health(&self) -> &Health {
        &self.health
    }

    fn remarks(&self) -> Vec<Remark> {
        self.connector.remark().into_iter().collect()
    }

    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
        let statements = self.connect(within).await?;
        let probed = statements.probe(&self.uses).await;
        probed.map_err(|error| write_fault(&error))
    }
}

impl SharedCounters for Arc<Counters> {
    fn fault(&self, source: StoreFault) -> Fault {
        self.health.fault(source)
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    /// A new connection reads the time when it is opened.
    async fn read_time(&self) -> Result<(), StoreFault> {
        self.run_on_connection(Operation::Time, true, async |_| Ok(()))
            .await
    }

    async fn reserve(
        &self,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault> {
        let action = Action::Reserve { limit };
        let reserve = async |batcher: Arc<Batcher>| batcher.send(action, counter, window).await;
        self.run_on_connection(Operation::Reserve, false, reserve)
            .await
    }

    async fn read(&self, counter: &Counter) -> Result<Option<(u64, Window)>, StoreFault> {
        const READ: Sql = Sql {
            text: "select window_start, window_end, used from imgwire_gate.quota \
                   where policy = $1 and key = $2",
            types: &[Type::TEXT, Type::TEXT],
        };
        let (policy, key) = (counter.policy.as_str(), key(counter));
        let read = async |batcher: Arc<Batcher>| {
            let rows = batcher.statements().query(&READ, &[&policy, &key]).await;
            rows.map_err(|error| fault(&error))
        };
        let rows = self.run_on_connection(Operation::Look, true, read).await?;
        let used = |row: &Row| u64::try_from(row.get::<_, i64>(2)).unwrap_or_default();
        Ok(rows.first().map(|row| (used(row), window(row, 0))))
    }

    async fn give_back(&self, counter: &Counter, window: Option<Window>) -> Result<(), StoreFault> {
        const CLEAR: Sql = Sql {
            text: "update imgwire_gate.quota set used = 0 where policy = $1 and key = $2",
            types: &[Type::TEXT, Type::TEXT],
        };
        let give_back = async |batcher: Arc<Batcher>| {
            if let Some(window) = window {
                let given_back = batcher.send(Action::GiveBack, counter, window).await;
                return given_back.map(drop);
            }
            let (policy, key) = (counter.policy.as_str(), key(counter));
            let cleared = batcher.statements().query(&CLEAR, &[&policy, &key]).await;
            cleared.map(drop).map_err(|error| write_fault(&error))
        };
        self.run_on_connection(Operation::GiveBack, false, give_back)
            .await
    }
}

const CLEAN: Sql = Sql {
    text: include_str!("clean.sql"),
    types: &[
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::FLOAT8,
        Type::TIMESTAMPTZ,
    ],
};

/// How often to check whether the store is still open.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Deletes counters of long past windows in the background while the store is open.
pub(super) async fn delete_old(counters: Weak<Counters>, mut schedule: CleanupSchedule) {
    loop {
        tokio::time::sleep(CHECK_PERIOD).await;
        let Some(counters) = counters.upgrade() else {
            return;
        };
        if schedule.due_in().is_zero() {
            if let Err(error) = delete_pages(&counters, &mut schedule).await {
                tracing::warn!(store = %counters.health.store(), %error, "old counters were not deleted");
            }
            schedule.schedule_next(None);
        }
    }
}

/// Deletes page by page, on its own connection.
async fn delete_pages(
    counters: &Counters,
    schedule: &mut CleanupSchedule,
) -> Result<(), StoreFault> {
    let statements = counters.connect(counters.health.timeout()).await?;
    let (page, retention) = (i64::from(PAGE), RETENTION.as_secs_f64());
    loop {
        let ((policy, key), now) = (schedule.after(), system_time(schedule.now()));
        let rows = statements
            .query(&CLEAN, &[&policy, &key, &page, &retention, &now])
            .await
            .map_err(|error| fault(&error))?;
        let last = rows.first();
        let Some(last) = last.filter(|last| last.get::<_, i64>(2) == page) else {
            return Ok(());
        };
        schedule.schedule_next(Some((last.get(0), last.get(1))));
        tokio::time::sleep(schedule.due_in()).await;
    }
}
