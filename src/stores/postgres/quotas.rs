//! Quotas in PostgreSQL (13 or later).
//!
//! Concurrent reservations share one statement and one commit.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::rt;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use policies::{Counter, Fault, Window};

use super::{
    batch::{What, key, timestamp},
    cleanup::keep_clean,
    connect::{Connector, Session},
    error::{fault, fault_of_write},
    lane::{Lane, Statements},
    url::PostgresUrl,
};
use crate::{
    stores::{
        backend::Backend,
        fault::{StoreFault, Unreachable},
        health::Health,
        kind::Opening,
        retention::Cleaning,
        shared_quotas::{Granted, SharedCounters},
        store_clock::StoreClock,
    },
    telemetry::{Operation, StoreMetrics},
};

pub(super) struct Counters {
    pub(super) health: Health,
    connector: Connector,
    clock: StoreClock,
    metrics: StoreMetrics,
}

impl Counters {
    /// Connects on the first operation, and then creates missing tables. Old counters are deleted in the background.
    pub(super) fn new(url: &PostgresUrl, opening: &Opening<'_>) -> Arc<Self> {
        let counters = Arc::new(Self {
            connector: Connector::new(url, opening),
            health: opening.health(),
            clock: StoreClock::new(opening.surroundings.clock.clone()),
            metrics: opening.metrics(),
        });
        let cleaning = Cleaning::new(opening.surroundings.clock.clone());
        rt::spawn(keep_clean(Arc::downgrade(&counters), cleaning));
        counters
    }

    /// Runs one operation on this thread's connection, within its time limit.
    async fn ask<T>(
        self: &Arc<Self>,
        what: Operation,
        only_reads: bool,
        operation: impl AsyncFn(Rc<Lane>) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let timeout = self.health.timeout();
        let connect = || {
            let counters = self.clone();
            // Connecting fails before the operation does, and names the host.
            let connecting = async move { counters.connect(timeout * 9 / 10).await };
            let connected = connecting.map(move |opened| {
                opened.map(|statements| Rc::new(Lane::new(statements, timeout)))
            });
            connected.boxed_local()
        };
        let done = self.run_on_kept(timeout, only_reads, connect, async |lane: Rc<Lane>| {
            // The connection is known to be closed.
            if lane.client().is_closed() {
                return Err(StoreFault::Unsent);
            }
            operation(lane).await
        });
        self.metrics.measure(what, done).await
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
            let tried = statements.try_out().await;
            tried.map_err(|error| fault_of_write(&error))
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
    async fn ask_time(self: &Arc<Self>) -> Result<(), StoreFault> {
        self.ask(Operation::Time, true, async |_| Ok(())).await
    }

    async fn reserve(
        self: &Arc<Self>,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault> {
        let what = What::Reserve { limit };
        let reserve = async |lane: Rc<Lane>| lane.ask(what, counter, window).await;
        self.ask(Operation::Reserve, false, reserve).await
    }

    async fn read(
        self: &Arc<Self>,
        counter: &Counter,
    ) -> Result<Option<(u64, Window)>, StoreFault> {
        const LOOK: &str = "select window_start, window_end, used from imgwire_gate.quota \
                            where policy = $1 and key = $2";
        let (policy, key) = (counter.policy.as_str(), key(counter));
        let look = async |lane: Rc<Lane>| {
            let row = lane.client().query_opt(LOOK, &[&policy, &key]).await;
            row.map_err(|error| fault(&error))
        };
        let row = self.ask(Operation::Look, true, look).await?;
        Ok(row.map(|row| {
            let window = Window {
                start: timestamp(row.get(0)),
                end: timestamp(row.get(1)),
            };
            (
                u64::try_from(row.get::<_, i64>(2)).unwrap_or_default(),
                window,
            )
        }))
    }

    async fn give_back(
        self: &Arc<Self>,
        counter: &Counter,
        unit_of: Option<Window>,
    ) -> Result<(), StoreFault> {
        const CLEAR: &str = "update imgwire_gate.quota set used = 0 where policy = $1 and key = $2";
        let give_back = async |lane: Rc<Lane>| {
            if let Some(window) = unit_of {
                return lane.ask(What::GiveBack, counter, window).await.map(drop);
            }
            let (policy, key) = (counter.policy.as_str(), key(counter));
            let cleared = lane.client().execute(CLEAR, &[&policy, &key]).await;
            cleared.map(drop).map_err(|error| fault_of_write(&error))
        };
        self.ask(Operation::GiveBack, false, give_back).await
    }
}
