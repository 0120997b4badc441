//! One thread's connection to the counters, which sends concurrent requests in batches.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::rt;
use futures_util::future::join;
use policies::{Counter, Window};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::{Client, types::ToSql};

use super::super::{fault::StoreFault, shared_quotas::Granted};
use super::{
    batch::{Action, Batch, CounterName, Counts, Group, Request},
    error::write_fault,
    statements::Statements,
};

/// How often a statement is sent again without its locked counters.
const MAX_RESENT: usize = 3;

/// While one batch is being sent, the next one fills.
pub(super) struct Batcher {
    statements: Statements,
    timeout: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    /// Whether a task is sending them.
    is_sending: bool,
}

impl Batcher {
    pub(super) fn new(statements: Statements, timeout: Duration) -> Self {
        Self {
            statements,
            timeout,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn client(&self) -> &Client {
        self.statements.client()
    }

    /// Sends a request in the next batch.
    pub(super) async fn send(
        self: &Arc<Self>,
        action: Action,
        counter: &Counter,
        window: Window,
    ) -> Result<Granted, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let is_sending = {
            let mut waiting = self.waiting();
            waiting.requests.push(Request {
                action,
                counter: counter.clone(),
                window,
                reply,
            });
            std::mem::replace(&mut waiting.is_sending, true)
        };
        if !is_sending {
            let batcher = self.clone();
            rt::spawn(async move { batcher.send_batches().await });
        }
        let closed = || StoreFault::Broken("the connection was closed".to_owned());
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Sends batches until no request is waiting.
    async fn send_batches(&self) {
        loop {
            let batch = {
                let mut waiting = self.waiting();
                let batch = Batch::take(&mut waiting.requests);
                waiting.is_sending = batch.is_some();
                batch
            };
            let Some(batch) = batch else { return };
            let (unclaimed, _) = join(
                self.send_group(batch.reservations),
                self.send_group(batch.returns),
            )
            .await;
            self.waiting().requests.extend(unclaimed);
        }
    }

    /// Sends a statement for many requests. A statement that fails has no effect. Then the requests that caused this are
    /// isolated, so that no request fails because of another.
    async fn send_group(&self, group: Group) -> Vec<Request> {
        let mut unclaimed = Vec::new();
        let mut groups = vec![group];
        let mut resent = 0;
        while let Some(mut group) = groups.pop() {
            if group.len() == 0 {
                continue;
            }
            match self.send_statement(&group).await {
                Err(StoreFault::Refused(_)) if group.len() > 1 => groups.extend(group.split()),
                Err(StoreFault::Locked) if group.len() > 1 && resent < MAX_RESENT => {
                    resent += 1;
                    let locked = group.extract(&self.locked(&group).await);
                    unclaimed.extend(locked.reply(&Err(StoreFault::Locked)));
                    groups.push(group);
                }
                sent => unclaimed.extend(group.reply(&sent)),
            }
        }
        unclaimed
    }

    async fn send_statement(&self, group: &Group) -> Result<Counts, StoreFault> {
        if self.client().is_closed() {
            return Err(StoreFault::Unsent);
        }
        match timeout(self.timeout, group.send(&self.statements)).await {
            Ok(sent) => sent.map_err(|error| write_fault(&error)),
            Err(_) => Err(StoreFault::Timeout),
        }
    }

    /// The counters that another transaction has locked.
    async fn locked(&self, group: &Group) -> HashSet<CounterName> {
        let (policies, keys) = group.names();
        let parameters: [&(dyn ToSql + Sync); 2] = [&policies, &keys];
        let rows = self.client().query(include_str!("locked.sql"), &parameters);
        match timeout(self.timeout, rows).await {
            Ok(Ok(rows)) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            // Unknown.
            Ok(Err(_)) | Err(_) => HashSet::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
