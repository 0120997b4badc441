//! Quotas in PostgreSQL (13 or later).
//!
//! What concurrent requests reserve is one statement and one commit: while one is under way, the next gathers.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use actix_web::rt;
use futures_util::future::{Either, FutureExt as _, LocalBoxFuture, join, ready};
use policies::{
    Clock, Counter, Fault, Hold, QuotaStore, Reservation, Reserving, Settling, StoreName, Telling,
    Window,
};
use rustls::ClientConfig;
use tokio::sync::oneshot;
use tokio_postgres::{Client, Config, Statement, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    batch::{Asked, Batch, Counts, micros, system_time, timestamp},
    cleanup::keep_clean,
    error::{describe, fault},
    schema::migrate,
};
use crate::{
    outbound::USER_AGENT,
    stores::{
        QueryError, Store, Trying,
        health::{Health, Probe},
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
    pub(super) name: StoreName,
    config: Config,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    health: Arc<Health>,
    clock: StoreClock,
    /// This machine's.
    own_clock: Arc<dyn Clock>,
    metrics: StoreMetrics,
}

/// One thread's connection, and the requests that wait for it.
pub(super) struct Lane {
    pub(super) client: Client,
    reserve: Statement,
    give_back: Statement,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    asked: Vec<Asked>,
    /// Whether a task carries them to the server.
    is_carried: bool,
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
        config
            .connect_timeout(timeout)
            // A server that was a primary, and is none any more, is not asked.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name(USER_AGENT);
        }
        Self(Arc::new(Shared {
            name: name.clone(),
            config,
            tls: tls.clone(),
            timeout,
            health: Health::new(name),
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
        self.0.health.begin(self.0.probe());
        let cleaning = Cleaning::new(self.0.own_clock.clone());
        rt::spawn(keep_clean(Arc::downgrade(&self.0), cleaning));
    }

    fn try_it(&self) -> Trying<'_> {
        Box::pin(self.0.try_it())
    }
}

impl Shared {
    fn fault(&self, source: QueryError) -> Fault {
        Fault::Store {
            store: self.name.clone(),
            source: Box::new(source),
        }
    }

    /// Does one operation on this thread's connection, in time or not at all. After a failure the server is left
    /// alone until it has been probed.
    async fn run<T>(
        self: &Arc<Self>,
        what: Operation,
        operation: impl AsyncFn(Rc<Lane>) -> Result<T, QueryError>,
    ) -> Result<T, Fault> {
        if !self.health.is_up() {
            return Err(self.fault(QueryError::Down("it is probed".to_owned())));
        }
        let timing = self.metrics.begin(what);
        let attempt = async {
            let connecting = || {
                let shared = self.clone();
                async move { shared.connect().await.map(Rc::new) }.boxed_local()
            };
            let (lane, was_kept) = self.health.connection(connecting).await?;
            match operation(lane.clone()).await {
                // The server ended it while nobody used it. If what was sent has been counted all the same, it is
                // counted twice, which lets nobody through.
                Err(QueryError::Down(_)) if was_kept && lane.client.is_closed() => {
                    self.health.forget();
                    operation(self.health.connection(connecting).await?.0).await
                }
                done => done,
            }
        };
        let result = tokio::time::timeout(self.timeout, attempt).await;
        let result = result.unwrap_or(Err(QueryError::Timeout));
        timing.end(result.is_ok());
        if result.is_ok() {
            self.health.answered();
        }
        result.map_err(|error| {
            self.health.forget();
            self.health.is_down(&error.to_string(), self.probe());
            self.fault(error)
        })
    }

    fn probe(self: &Arc<Self>) -> Probe {
        let shared = self.clone();
        Rc::new(move || {
            let shared = shared.clone();
            async move { shared.try_it().await }.boxed_local()
        })
    }

    /// Finds out whether the server takes what a gate writes; says why not.
    async fn try_it(self: &Arc<Self>) -> Result<(), String> {
        let connecting = tokio::time::timeout(self.timeout, self.connect());
        let connected = connecting.await.unwrap_or(Err(QueryError::Timeout));
        connected.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lane, QueryError> {
        let unreachable = |error: tokio_postgres::Error| QueryError::Down(describe(&error));
        let tls = MakeRustlsConnect::new((*self.tls).clone());
        let (mut client, connection) = self.config.connect(tls).await.map_err(unreachable)?;
        // It ends with its client, who hears of whatever goes wrong.
        rt::spawn(connection.map(drop));
        migrate(&mut client).await.map_err(unreachable)?;
        // The server ends what takes too long; and what it says is counted is on its disk.
        let begin = format!(
            "set statement_timeout = {}; \
             select set_config('synchronous_commit', 'on', false) \
             where current_setting('synchronous_commit') = 'off'",
            self.timeout.as_millis().max(1)
        );
        client.batch_execute(&begin).await.map_err(unreachable)?;
        let now = client.query_one("select clock_timestamp()", &[]).await;
        self.clock.heard(micros(now.map_err(unreachable)?.get(0)));
        let (reserve, give_back) = join(
            client.prepare(include_str!("reserve.sql")),
            client.prepare(include_str!("give_back.sql")),
        )
        .await;
        Ok(Lane {
            client,
            reserve: reserve.map_err(unreachable)?,
            give_back: give_back.map_err(unreachable)?,
            waiting: RefCell::default(),
        })
    }

    /// Has `asked` carried to the server with the next batch.
    fn carry(self: &Arc<Self>, lane: &Rc<Lane>, asked: Asked) {
        let mut waiting = lane.waiting.borrow_mut();
        waiting.asked.push(asked);
        if !std::mem::replace(&mut waiting.is_carried, true) {
            let (shared, lane) = (self.clone(), lane.clone());
            rt::spawn(async move { shared.carry_batches(&lane).await });
        }
    }

    async fn carry_batches(self: &Arc<Self>, lane: &Lane) {
        loop {
            let batch = {
                let mut waiting = lane.waiting.borrow_mut();
                let batch = Batch::take(&mut waiting.asked);
                waiting.is_carried = batch.is_some();
                batch
            };
            let Some(batch) = batch else { return };
            let sent = tokio::time::timeout(self.timeout, self.send(lane, &batch)).await;
            let sent = sent.unwrap_or(Err(QueryError::Timeout));
            // Whoever asked judges what a failure means. What was granted to those who gave up meanwhile goes back.
            let unclaimed = batch.settle(&sent);
            lane.waiting.borrow_mut().asked.extend(unclaimed);
        }
    }

    async fn send(&self, lane: &Lane, batch: &Batch) -> Result<Counts, QueryError> {
        let reserving = async {
            if batch.reserves() {
                let parameters = batch.reservations();
                lane.client.query(&lane.reserve, &parameters.as_sql()).await
            } else {
                Ok(Vec::new())
            }
        };
        let giving_back = async {
            if batch.gives_back() {
                let parameters = batch.returns();
                let parameters = parameters.as_sql();
                let given = lane.client.execute(&lane.give_back, &parameters);
                given.await.map(drop)
            } else {
                Ok(())
            }
        };
        // Both travel together.
        let (rows, given_back) = join(reserving, giving_back).await;
        given_back.map_err(|error| fault(&error))?;
        let counts = Counts::read(&rows.map_err(|error| fault(&error))?);
        if let Some(now) = counts.now {
            self.clock.heard(now);
        }
        Ok(counts)
    }
}

impl QuotaStore for PostgresStore {
    fn now<'a>(&'a self, _: &'a dyn Clock) -> Telling<'a> {
        match self.0.clock.now() {
            Some(now) => Either::Left(ready(Ok(now))),
            // Whoever connects hears it.
            None => Either::Right(Box::pin(async move {
                self.0.run(Operation::Time, async |_| Ok(())).await?;
                Ok(self.0.clock.now().unwrap_or_default())
            })),
        }
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> Reserving<'_> {
        Box::pin(async move {
            let reserve = async |lane: Rc<Lane>| {
                let (reply, answer) = oneshot::channel();
                let asked = Asked::Reserve {
                    counter: counter.clone(),
                    window,
                    limit,
                    reply,
                };
                self.0.carry(&lane, asked);
                answer.await.unwrap_or(Err(gone()))
            };
            let granted = self.0.run(Operation::Reserve, reserve).await?;
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
            let (policy, key) = (counter.policy.as_str(), super::batch::key(&counter));
            let start = system_time(window.start);
            let look = async |lane: Rc<Lane>| {
                let row = lane.client.query_opt(LOOK, &[&policy, &key, &start]).await;
                row.map_err(|error| fault(&error))
            };
            // What was counted in an earlier window is over.
            Ok(match self.0.run(Operation::Look, look).await? {
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
            let (policy, key) = (counter.policy.as_str(), super::batch::key(&counter));
            let clear = async |lane: Rc<Lane>| {
                let cleared = lane.client.execute(CLEAR, &[&policy, &key]).await;
                cleared.map(drop).map_err(|error| fault(&error))
            };
            self.0.run(Operation::GiveBack, clear).await
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
                let (reply, answer) = oneshot::channel();
                let asked = Asked::GiveBack {
                    counter: self.counter.clone(),
                    start: self.window.start,
                    reply: Some(reply),
                };
                self.shared.carry(&lane, asked);
                answer.await.unwrap_or(Err(gone()))
            };
            self.shared.run(Operation::GiveBack, give_back).await
        })
    }
}

/// The connection ended with what it was to carry.
fn gone() -> QueryError {
    QueryError::Down("the connection ended".to_owned())
}
