//! One thread's connection to the counters, with its waiting requests.

use std::{cell::RefCell, collections::HashSet, rc::Rc, time::Duration};

use actix_web::rt;
use futures_util::future::join;
use policies::{Counter, Window};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::{Error, Statement, types::ToSql};
use uuid::Uuid;

use super::{
    batch::{Asked, Batch, Counts, Part, What, micros},
    connect::Session,
    error::fault_of_write,
    schema::migrate,
};
use crate::stores::{fault::StoreFault, shared_quotas::Granted, store_clock::StoreClock};

/// How often a statement is sent again without its locked counters.
const MAX_RESENT: usize = 3;

/// A connection for counting. While one batch is in progress, the next one fills.
pub(super) struct Lane {
    statements: Statements,
    timeout: Duration,
    waiting: RefCell<Waiting>,
}

pub(super) struct Statements {
    pub(super) session: Session,
    pub(super) reserve: Statement,
    pub(super) give_back: Statement,
    pub(super) clock: StoreClock,
}

#[derive(Default)]
struct Waiting {
    asked: Vec<Asked>,
    /// Whether a task is sending them.
    is_carried: bool,
}

impl Statements {
    /// Creates missing tables, and prepares the statements.
    pub(super) async fn prepare(
        mut session: Session,
        timeout: Duration,
        clock: StoreClock,
    ) -> Result<Self, Error> {
        migrate(&mut session.client).await?;
        // The server cancels what takes too long, and waits for a lock no longer than the others in a batch can. What
        // it reports as counted is on its disk.
        let begin = format!(
            "set statement_timeout = {}; \
             set lock_timeout = {}; \
             select set_config('synchronous_commit', 'on', false) \
             where current_setting('synchronous_commit') = 'off'",
            timeout.as_millis().max(1),
            (timeout / 4).as_millis().max(1),
        );
        let client = &session.client;
        client.batch_execute(&begin).await?;
        let now = client.query_one("select clock_timestamp()", &[]).await?;
        clock.heard(micros(now.get(0)));
        let (reserve, give_back) = join(
            client.prepare(include_str!("reserve.sql")),
            client.prepare(include_str!("give_back.sql")),
        )
        .await;
        Ok(Self {
            reserve: reserve?,
            give_back: give_back?,
            session,
            clock,
        })
    }

    /// Counts a unit and gives it back in a transaction that is rolled back, so that a missing permission shows. The
    /// key is new, so no other gate waits for it.
    pub(super) async fn try_out(mut self) -> Result<(), Error> {
        // No policy name contains a space.
        const POLICY: [&str; 1] = ["a probe"];

        let key = vec![Uuid::new_v4().to_string()];
        let now = vec![std::time::UNIX_EPOCH];
        let unit = vec![1_i64];
        let transaction = self.session.client.transaction().await?;
        let policy = POLICY.to_vec();
        transaction
            .execute(&self.reserve, &[&policy, &key, &now, &now, &unit, &unit])
            .await?;
        transaction
            .execute(&self.give_back, &[&policy, &key, &now, &unit])
            .await?;
        transaction.rollback().await
    }
}

impl Lane {
    pub(super) fn new(statements: Statements, timeout: Duration) -> Self {
        Self {
            statements,
            timeout,
            waiting: RefCell::default(),
        }
    }

    pub(super) fn client(&self) -> &tokio_postgres::Client {
        &self.statements.session.client
    }

    /// Adds a request to the next batch.
    pub(super) async fn ask(
        self: &Rc<Self>,
        what: What,
        counter: &Counter,
        window: Window,
    ) -> Result<Granted, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let must_carry = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.asked.push(Asked {
                what,
                counter: counter.clone(),
                window,
                reply,
            });
            !std::mem::replace(&mut waiting.is_carried, true)
        };
        if must_carry {
            let lane = self.clone();
            rt::spawn(async move { lane.carry().await });
        }
        let gone = || StoreFault::Broken("the connection ended".to_owned());
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Sends batches until nothing is waiting.
    async fn carry(&self) {
        loop {
            let batch = {
                let mut waiting = self.waiting.borrow_mut();
                let batch = Batch::take(&mut waiting.asked);
                waiting.is_carried = batch.is_some();
                batch
            };
            let Some(batch) = batch else { return };
            // Both are sent together.
            let (unclaimed, _) = join(
                self.deliver(batch.reservations),
                self.deliver(batch.returns),
            )
            .await;
            // Gives back what was granted to requests that gave up meanwhile.
            self.waiting.borrow_mut().asked.extend(unclaimed);
        }
    }

    /// Sends a statement for many requests. If the server refuses it, it has no effect. Then the requests that caused
    /// this are found, so that no request fails because of another.
    async fn deliver(&self, part: Part) -> Vec<Asked> {
        let mut unclaimed = Vec::new();
        let mut parts = vec![part];
        let mut resent = 0;
        while let Some(mut part) = parts.pop() {
            if part.len() == 0 {
                continue;
            }
            match self.send(&part).await {
                Err(StoreFault::Refused(_)) if part.len() > 1 => parts.extend(part.split()),
                Err(StoreFault::Locked) if part.len() > 1 && resent < MAX_RESENT => {
                    resent += 1;
                    let locked = part.take_out(&self.locked(&part).await);
                    unclaimed.extend(locked.settle(&Err(StoreFault::Locked)));
                    parts.push(part);
                }
                sent => unclaimed.extend(part.settle(&sent)),
            }
        }
        unclaimed
    }

    async fn send(&self, part: &Part) -> Result<Counts, StoreFault> {
        if self.client().is_closed() {
            return Err(StoreFault::Unsent);
        }
        match timeout(self.timeout, part.send(&self.statements)).await {
            Ok(sent) => sent.map_err(|error| fault_of_write(&error)),
            Err(_) => Err(StoreFault::Timeout),
        }
    }

    /// The counters that another transaction has locked.
    async fn locked(&self, part: &Part) -> HashSet<(String, String)> {
        let (policies, keys) = part.names();
        let parameters: [&(dyn ToSql + Sync); 2] = [&policies, &keys];
        let asked = self.client().query(include_str!("locked.sql"), &parameters);
        match timeout(self.timeout, asked).await {
            Ok(Ok(rows)) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            // Unknown.
            Ok(Err(_)) | Err(_) => HashSet::new(),
        }
    }
}
