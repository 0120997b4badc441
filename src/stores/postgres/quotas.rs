//! Quotas in PostgreSQL (13 or later).
//!
//! What concurrent requests reserve is one statement and one commit.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::rt;
use futures_util::future::{Either, FutureExt as _, LocalBoxFuture, ready};
use policies::{
    Clock, Counter, Fault, Hold, QuotaStore, Reservation, Reserving, Settling, StoreName, Telling,
    Window,
};
use rustls::ClientConfig;
use tokio_postgres::{Config, config::TargetSessionAttrs};

use super::{
    batch::{Asked, key, system_time, timestamp},
    cleanup::keep_clean,
    connect::{Connector, Session},
    error::{fault, fault_of_write},
    lane::{Lane, Statements},
};
use crate::{
    stores::{
        Store, Trying,
        backend::{Backend, probe_in_time},
        fault::{StoreFault, Unreachable},
        health::Health,
        retention::Cleaning,
        store_clock::StoreClock,
    },
    telemetry::{Operation, StoreMetrics},
};

/// A database that quotas are counted in.
#[derive(Clone)]
pub struct PostgresStore(Arc<Shared>);

/// What all threads know of the database.
pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) health: Health,
    clock: StoreClock,
    /// This machine's.
    own_clock: Arc<dyn Clock>,
    metrics: StoreMetrics,
}

impl PostgresStore {
    /// Connects when it is asked, or told to [begin](Store::begin); then its tables are made, if they are not there.
    /// `timeout` bounds each operation.
    #[must_use]
    pub fn new(
        name: StoreName,
        config: &Config,
        tls: &Arc<ClientConfig>,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        metrics: StoreMetrics,
    ) -> Self {
        let mut config = config.clone();
        // A server that is no primary any more is not asked.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Self(Arc::new(Shared {
            connector: Connector::new(&config, tls, clock.clone()),
            health: Health::new(name, timeout, clock.clone()),
            clock: StoreClock::new(clock.clone()),
            own_clock: clock,
            metrics,
        }))
    }
}

impl Store for PostgresStore {
    fn is_healthy(&self) -> bool {
        self.0.health.is_ready()
    }

    fn begin(&self) {
        self.0.begin();
        let cleaning = Cleaning::new(self.0.own_clock.clone());
        rt::spawn(keep_clean(Arc::downgrade(&self.0), cleaning));
    }

    fn try_it(&self) -> Trying<'_> {
        let within = self.0.health.timeout();
        Box::pin(
            probe_in_time(&self.0, within).map(|tried| tried.map_err(|fault| fault.to_string())),
        )
    }
}

impl Backend for Shared {
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

impl Shared {
    fn fault(&self, source: StoreFault) -> Fault {
        Fault::Store {
            store: self.health.store().clone(),
            source: Box::new(source),
        }
    }

    /// Does one operation on this thread's connection, in time or not at all.
    async fn ask<T>(
        self: &Arc<Self>,
        what: Operation,
        only_reads: bool,
        operation: impl AsyncFn(Rc<Lane>) -> Result<T, StoreFault>,
    ) -> Result<T, Fault> {
        let timing = self.metrics.begin(what);
        let timeout = self.health.timeout();
        let connect = || {
            let shared = self.clone();
            // It fails before the operation does, and says which host it was.
            let connecting = async move { shared.connect(timeout * 9 / 10).await };
            let connected = connecting.map(move |opened| {
                opened.map(|statements| Rc::new(Lane::new(statements, timeout)))
            });
            connected.boxed_local()
        };
        let done = self.run_on_kept(timeout, only_reads, connect, async |lane: Rc<Lane>| {
            // A connection that is known to be closed.
            if lane.client().is_closed() {
                return Err(StoreFault::Unsent);
            }
            operation(lane).await
        });
        let done = done.await;
        timing.end(done.is_ok());
        done.map_err(|fault| self.fault(fault))
    }

    pub(super) async fn connect(
        self: &Arc<Self>,
        within: Duration,
    ) -> Result<Statements, Unreachable> {
        let set_up = |session: Session| {
            Statements::prepare(session, self.health.timeout(), self.clock.clone())
        };
        self.connector.connect(within, set_up).await
    }
}

impl QuotaStore for PostgresStore {
    fn now<'a>(&'a self, _: &'a dyn Clock) -> Telling<'a> {
        match self.0.clock.now() {
            Some(now) => Either::Left(ready(Ok(now))),
            // A connection hears it when it is opened.
            None => Either::Right(Box::pin(async move {
                let nothing = async |_| Ok(());
                self.0.ask(Operation::Time, true, nothing).await?;
                Ok(self.0.clock.now().unwrap_or_default())
            })),
        }
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> Reserving<'_> {
        Box::pin(async move {
            let reserve = async |lane: Rc<Lane>| {
                let asked = |reply| Asked::Reserve {
                    counter: counter.clone(),
                    window,
                    limit,
                    reply,
                };
                lane.ask(asked).await
            };
            let granted = self.0.ask(Operation::Reserve, false, reserve).await?;
            let Some(used) = granted.used else {
                return Ok(Reservation::Exhausted {
                    window: granted.window,
                });
            };
            let unit = Unit {
                shared: self.0.clone(),
                counter,
                window: granted.window,
            };
            Ok(Reservation::Granted {
                hold: Box::new(unit),
                used,
                window: granted.window,
            })
        })
    }

    fn used(
        &self,
        counter: Counter,
        window: Window,
    ) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        Box::pin(async move {
            const LOOK: &str = "select window_start, window_end, used from imgwire_gate.quota \
                                where policy = $1 and key = $2 and window_start >= $3";
            let (policy, key) = (counter.policy.as_str(), key(&counter));
            let start = system_time(window.start);
            let look = async |lane: Rc<Lane>| {
                let row = lane
                    .client()
                    .query_opt(LOOK, &[&policy, &key, &start])
                    .await;
                row.map_err(|error| fault(&error))
            };
            // What was counted in an earlier window is over.
            Ok(match self.0.ask(Operation::Look, true, look).await? {
                Some(row) => {
                    let used: i64 = row.get(2);
                    let window = Window {
                        start: timestamp(row.get(0)),
                        end: timestamp(row.get(1)),
                    };
                    (u64::try_from(used).unwrap_or_default(), window)
                }
                None => (0, window),
            })
        })
    }

    fn give_back(&self, counter: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            const CLEAR: &str =
                "update imgwire_gate.quota set used = 0 where policy = $1 and key = $2";
            let (policy, key) = (counter.policy.as_str(), key(&counter));
            let clear = async |lane: Rc<Lane>| {
                let cleared = lane.client().execute(CLEAR, &[&policy, &key]).await;
                cleared.map(drop).map_err(|error| fault_of_write(&error))
            };
            self.0.ask(Operation::GiveBack, false, clear).await
        })
    }
}

/// A unit that is counted for a request.
struct Unit {
    shared: Arc<Shared>,
    counter: Counter,
    window: Window,
}

impl Hold for Unit {
    /// The answer that granted it came after the commit.
    fn commit(&mut self) -> Settling<'_> {
        Box::pin(ready(Ok(())))
    }

    fn release(self: Box<Self>) -> Settling<'static> {
        Box::pin(async move {
            let give_back = async |lane: Rc<Lane>| {
                let asked = |reply| Asked::GiveBack {
                    counter: self.counter.clone(),
                    start: self.window.start,
                    reply: Some(reply),
                };
                lane.ask(asked).await
            };
            let shared = &self.shared;
            shared.ask(Operation::GiveBack, false, give_back).await
        })
    }
}
