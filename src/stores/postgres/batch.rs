//! One thread's connection to the counters, which sends requests of concurrent callers in one statement.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map as map},
    sync::Arc,
    time::Duration,
};

use actix_web::rt;
use futures_util::future::join;
use parking_lot::Mutex;
use policies::{Counter, Window};
use tokio::{sync::oneshot, time::timeout};
use tokio_postgres::{Error, Row, types::Type};

use super::{
    connect::write_fault,
    statements::{Parameters, Sql, Statements, micros, system_time, window},
};
use crate::stores::{fault::StoreFault, shared_quotas::Granted};

const MAX_REQUESTS: usize = 500;

const LOCKED: Sql = Sql {
    text: include_str!("locked.sql"),
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

/// Counts one unit for each reply, or gives it back.
struct Request {
    action: Action,
    counter: Counter,
    /// The requested window, or the window that the unit was counted in.
    window: Window,
    replies: Vec<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Reserve { limit: u64 },
    GiveBack,
}

type Reply = oneshot::Sender<Result<Granted, StoreFault>>;

#[derive(Default)]
struct Batch {
    reservations: Group,
    returns: Group,
}

/// The requests of one statement, by policy and key. Equal ones are combined.
#[derive(Default)]
struct Group(BTreeMap<CounterName, Request>);

/// A policy and a key.
type CounterName = (String, String);

type Counts = HashMap<CounterName, Count>;

#[derive(Clone, Copy)]
struct Count {
    window: Window,
    used: u64,
    granted: u64,
}

/// The counter's key without zero bytes, which `text` cannot hold. `%` is already escaped.
pub(super) fn key(counter: &Counter) -> String {
    counter.key.replace('\0', "%00")
}

impl Batch {
    /// Takes as many requests as fit. A counter has one window and one limit within a statement, so a request with
    /// others waits for the next batch.
    fn take(requests: &mut Vec<Request>) -> Option<Self> {
        if requests.is_empty() {
            return None;
        }
        let mut batch = Self::default();
        let rest = requests.split_off(requests.len().min(MAX_REQUESTS));
        let mut later = Vec::new();
        for request in std::mem::take(requests) {
            let group = match request.action {
                // The caller gave up before anything was sent.
                Action::Reserve { .. } if request.replies.iter().all(Reply::is_closed) => continue,
                Action::Reserve { .. } => &mut batch.reservations,
                Action::GiveBack => &mut batch.returns,
            };
            later.extend(group.add(request));
        }
        later.extend(rest);
        *requests = later;
        Some(batch)
    }
}

impl Group {
    /// Returns the request if it does not fit.
    fn add(&mut self, mut request: Request) -> Option<Request> {
        let name = (request.counter.policy.to_string(), key(&request.counter));
        match self.0.entry(name) {
            map::Entry::Vacant(entry) => _ = entry.insert(request),
            map::Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                if entry.window != request.window || entry.action != request.action {
                    return Some(request);
                }
                entry.replies.append(&mut request.replies);
            }
        }
        None
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// Two halves. A statement that fails has no effect, so each half can be sent again.
    fn split(mut self) -> [Self; 2] {
        let middle = self.0.keys().nth(self.len() / 2).cloned();
        let rest = middle.map(|middle| self.0.split_off(&middle));
        [self, Self(rest.unwrap_or_default())]
    }

    /// Removes and returns the requests for some counters.
    fn extract(&mut self, counters: &HashSet<CounterName>) -> Self {
        let extracted = self.0.extract_if(.., |name, _| counters.contains(name));
        Self(extracted.collect())
    }

    fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let names = self.0.keys();
        names
            .map(|(policy, key)| (policy.as_str(), key.as_str()))
            .unzip()
    }

    async fn send(&self, statements: &Statements) -> Result<Counts, Error> {
        let (policies, keys) = self.names();
        let entries = || self.0.values();
        let starts: Vec<_> = entries().map(|it| system_time(it.window.start)).collect();
        let units: Vec<_> = entries()
            .map(|it| number(it.replies.len() as u64))
            .collect();
        if entries().all(|it| it.action == Action::GiveBack) {
            let parameters: Parameters<'_> = &[&policies, &keys, &starts, &units];
            let sent = statements.give_back(parameters).await;
            return sent.map(|()| Counts::default());
        }
        let ends: Vec<_> = entries().map(|it| system_time(it.window.end)).collect();
        let limits: Vec<_> = entries().map(|it| number(it.action.limit())).collect();
        let parameters: Parameters<'_> = &[&policies, &keys, &starts, &ends, &units, &limits];
        let rows = statements.reserve(parameters).await?;
        if let Some(row) = rows.first() {
            statements.clock.report(micros(row.get(6)));
        }
        Ok(rows.iter().map(count).collect())
    }

    /// Sends each caller its result. Returns requests that give back what was granted to callers that gave up.
    fn reply(self, sent: &Result<Counts, StoreFault>) -> Vec<Request> {
        let mut unclaimed = Vec::new();
        for (name, entry) in self.0 {
            let count = match (sent, entry.action) {
                (Err(fault), _) => Err(fault.clone()),
                (Ok(_), Action::GiveBack) => Ok(Count {
                    window: entry.window,
                    used: 0,
                    granted: 0,
                }),
                (Ok(counts), Action::Reserve { .. }) => {
                    let missing = || StoreFault::Refused("the answer lacks a counter".to_owned());
                    counts.get(&name).copied().ok_or_else(missing)
                }
            };
            for (index, reply) in entry.replies.into_iter().enumerate() {
                let granted = count.clone().map(|count| count.granted(index as u64));
                if let Err(Ok(Granted {
                    used: Some(_),
                    window,
                })) = reply.send(granted)
                {
                    unclaimed.push(Request {
                        action: Action::GiveBack,
                        counter: entry.counter.clone(),
                        window,
                        replies: vec![oneshot::channel().0],
                    });
                }
            }
        }
        unclaimed
    }
}

impl Action {
    fn limit(self) -> u64 {
        match self {
            Self::Reserve { limit } => limit,
            Self::GiveBack => 0,
        }
    }
}

impl Count {
    /// The result of one of the requests. The last of the counted units are those that were granted now.
    fn granted(self, index: u64) -> Granted {
        let used = self.used.saturating_sub(self.granted) + index + 1;
        Granted {
            used: (used <= self.used).then_some(used),
            window: self.window,
        }
    }
}

fn count(row: &Row) -> (CounterName, Count) {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let count = Count {
        window: window(row, 2),
        used: unsigned(row.get(4)),
        granted: unsigned(row.get(5)),
    };
    ((row.get(0), row.get(1)), count)
}

/// A limit beyond `bigint` is unlimited.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

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

    pub(super) fn statements(&self) -> &Statements {
        &self.statements
    }

    pub(super) fn is_closed(&self) -> bool {
        self.statements.client().is_closed()
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        action: Action,
        counter: &Counter,
        window: Window,
    ) -> Result<Granted, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let is_sending = {
            let mut waiting = self.waiting.lock();
            waiting.requests.push(Request {
                action,
                counter: counter.clone(),
                window,
                replies: vec![reply],
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
                let mut waiting = self.waiting.lock();
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
            self.waiting.lock().requests.extend(unclaimed);
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
        if self.is_closed() {
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
        let parameters: Parameters<'_> = &[&policies, &keys];
        let rows = self.statements.query(&LOCKED, parameters);
        match timeout(self.timeout, rows).await {
            Ok(Ok(rows)) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            // Unknown.
            Ok(Err(_)) | Err(_) => HashSet::new(),
        }
    }
}
