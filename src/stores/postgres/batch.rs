//! Combines requests of many callers into one statement.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map as map};

use policies::{Counter, Window};
use tokio::sync::oneshot;
use tokio_postgres::{Error, Row, types::ToSql};

use super::super::{fault::StoreFault, shared_quotas::Granted};
use super::{
    statements::Statements,
    time::{micros, system_time, timestamp},
};

const MAX_REQUESTS: usize = 500;

/// Counts one unit, or gives one back.
pub(super) struct Request {
    pub(super) action: Action,
    pub(super) counter: Counter,
    /// The requested window, or the window that the unit was counted in.
    pub(super) window: Window,
    pub(super) reply: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Reserve { limit: u64 },
    GiveBack,
}

pub(super) type Reply = oneshot::Sender<Result<Granted, StoreFault>>;

#[derive(Default)]
pub(super) struct Batch {
    pub(super) reservations: Group,
    pub(super) returns: Group,
}

/// The requests of one statement, by policy and key.
#[derive(Default)]
pub(super) struct Group(BTreeMap<CounterName, Entry>);

/// A policy and a key.
pub(super) type CounterName = (String, String);

/// Equal requests for one counter.
struct Entry {
    action: Action,
    counter: Counter,
    window: Window,
    replies: Vec<Reply>,
}

#[derive(Default)]
pub(super) struct Counts(HashMap<CounterName, Count>);

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
    pub(super) fn take(requests: &mut Vec<Request>) -> Option<Self> {
        if requests.is_empty() {
            return None;
        }
        let mut batch = Self::default();
        let rest = requests.split_off(requests.len().min(MAX_REQUESTS));
        let mut later = Vec::new();
        for request in std::mem::take(requests) {
            let group = match request.action {
                // The caller gave up before anything was sent.
                Action::Reserve { .. } if request.reply.is_closed() => continue,
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
    fn add(&mut self, request: Request) -> Option<Request> {
        let name = (request.counter.policy.to_string(), key(&request.counter));
        match self.0.entry(name) {
            map::Entry::Vacant(entry) => {
                entry.insert(Entry {
                    action: request.action,
                    counter: request.counter,
                    window: request.window,
                    replies: vec![request.reply],
                });
            }
            map::Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                if entry.window != request.window || entry.action != request.action {
                    return Some(request);
                }
                entry.replies.push(request.reply);
            }
        }
        None
    }

    /// The number of counters.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Two halves. A statement that fails has no effect, so each half can be sent again.
    pub(super) fn split(mut self) -> [Self; 2] {
        let middle = self.0.keys().nth(self.len() / 2).cloned();
        let rest = middle.map(|middle| self.0.split_off(&middle));
        [self, Self(rest.unwrap_or_default())]
    }

    /// Removes and returns the requests for some counters.
    pub(super) fn extract(&mut self, counters: &HashSet<CounterName>) -> Self {
        let extracted = self.0.extract_if(.., |name, _| counters.contains(name));
        Self(extracted.collect())
    }

    pub(super) fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let names = self.0.keys();
        names
            .map(|(policy, key)| (policy.as_str(), key.as_str()))
            .unzip()
    }

    pub(super) async fn send(&self, statements: &Statements) -> Result<Counts, Error> {
        let (policies, keys) = self.names();
        let entries = || self.0.values();
        let starts: Vec<_> = entries().map(|it| system_time(it.window.start)).collect();
        let units: Vec<_> = entries()
            .map(|it| number(it.replies.len() as u64))
            .collect();
        let client = statements.client();
        if entries().all(|it| it.action == Action::GiveBack) {
            let parameters: [&(dyn ToSql + Sync); 4] = [&policies, &keys, &starts, &units];
            let sent = client.execute(&statements.give_back, &parameters);
            return sent.await.map(|_| Counts::default());
        }
        let ends: Vec<_> = entries().map(|it| system_time(it.window.end)).collect();
        let limits: Vec<_> = entries().map(|it| number(it.action.limit())).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&policies, &keys, &starts, &ends, &units, &limits];
        let rows = client.query(&statements.reserve, &parameters).await?;
        if let Some(row) = rows.first() {
            statements.clock.report(micros(row.get(6)));
        }
        Ok(Counts(rows.iter().map(count).collect()))
    }

    /// Sends each caller its result. Returns requests that give back what was granted to callers that gave up.
    pub(super) fn reply(self, sent: &Result<Counts, StoreFault>) -> Vec<Request> {
        let mut unclaimed = Vec::new();
        for (name, entry) in self.0 {
            let count = match (sent, entry.action) {
                (Err(fault), _) => Err(fault.clone()),
                (Ok(_), Action::GiveBack) => Ok(Count {
                    window: entry.window,
                    used: 0,
                    granted: 0,
                }),
                (Ok(Counts(counts)), Action::Reserve { .. }) => {
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
                    let (reply, _) = oneshot::channel();
                    unclaimed.push(Request {
                        action: Action::GiveBack,
                        counter: entry.counter.clone(),
                        window,
                        reply,
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
        window: Window {
            start: timestamp(row.get(2)),
            end: timestamp(row.get(3)),
        },
        used: unsigned(row.get(4)),
        granted: unsigned(row.get(5)),
    };
    ((row.get(0), row.get(1)), count)
}

/// A limit beyond `bigint` is unlimited.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
