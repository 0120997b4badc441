//! Requests to the database, combined in batches.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map as map},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use policies::{Counter, Window};
use tokio::sync::oneshot;
use tokio_postgres::{Error, Row, types::ToSql};

use super::lane::Statements;
use crate::stores::{fault::StoreFault, shared_quotas::Granted};

const MAX_ASKED: usize = 500;

/// One request: a unit to count, or one to give back.
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) counter: Counter,
    /// The requested window, or the one that the unit was counted in.
    pub(super) window: Window,
    pub(super) reply: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Reserve { limit: u64 },
    GiveBack,
}

pub(super) type Reply = oneshot::Sender<Result<Granted, StoreFault>>;

#[derive(Default)]
pub(super) struct Batch {
    pub(super) reservations: Part,
    pub(super) returns: Part,
}

/// One statement for many requests: by policy and key, in their order.
#[derive(Default)]
pub(super) struct Part(BTreeMap<(String, String), Entry>);

/// Equal requests for one counter.
struct Entry {
    what: What,
    counter: Counter,
    window: Window,
    replies: Vec<Reply>,
}

#[derive(Default)]
pub(super) struct Counts(HashMap<(String, String), Counted>);

#[derive(Clone, Copy)]
struct Counted {
    window: Window,
    used: u64,
    granted: u64,
}

/// The counter's key without zero bytes, which `text` cannot hold. `%` is already escaped.
pub(super) fn key(counter: &Counter) -> String {
    counter.key.replace('\0', "%00")
}

pub(super) fn system_time(timestamp: Timestamp) -> SystemTime {
    let since = Duration::from_micros(timestamp.as_microsecond().unsigned_abs());
    if timestamp < Timestamp::UNIX_EPOCH {
        UNIX_EPOCH - since
    } else {
        UNIX_EPOCH + since
    }
}

/// Windows come back as written. A time outside of the calendar becomes its end.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn micros(time: SystemTime) -> i64 {
    timestamp(time).as_microsecond()
}

impl Batch {
    /// Takes as many requests as fit. A counter has one window and one limit within a statement, so a request with
    /// others waits for the next batch.
    pub(super) fn take(asked: &mut Vec<Asked>) -> Option<Self> {
        if asked.is_empty() {
            return None;
        }
        let mut batch = Self::default();
        let rest = asked.split_off(asked.len().min(MAX_ASKED));
        let mut later = Vec::new();
        for asked in std::mem::take(asked) {
            let part = match asked.what {
                // A request that gave up before its turn needs nothing.
                What::Reserve { .. } if asked.reply.is_closed() => continue,
                What::Reserve { .. } => &mut batch.reservations,
                What::GiveBack => &mut batch.returns,
            };
            later.extend(part.add(asked));
        }
        later.extend(rest);
        *asked = later;
        Some(batch)
    }
}

impl Part {
    /// Returns the request if it does not fit.
    fn add(&mut self, asked: Asked) -> Option<Asked> {
        let name = (asked.counter.policy.to_string(), key(&asked.counter));
        match self.0.entry(name) {
            map::Entry::Vacant(entry) => {
                entry.insert(Entry {
                    what: asked.what,
                    counter: asked.counter,
                    window: asked.window,
                    replies: vec![asked.reply],
                });
            }
            map::Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                if entry.window != asked.window || entry.what != asked.what {
                    return Some(asked);
                }
                entry.replies.push(asked.reply);
            }
        }
        None
    }

    /// The number of counters.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Two halves. A statement that the server refuses has no effect, so each half can be sent again by itself.
    pub(super) fn split(mut self) -> [Self; 2] {
        let middle = self.0.keys().nth(self.len() / 2).cloned();
        let rest = middle.map(|middle| self.0.split_off(&middle));
        [self, Self(rest.unwrap_or_default())]
    }

    pub(super) fn take_out(&mut self, counters: &HashSet<(String, String)>) -> Self {
        let is_one = |name: &(String, String), _: &mut Entry| counters.contains(name);
        Self(self.0.extract_if(.., is_one).collect())
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
        let client = &statements.session.client;
        if entries().all(|it| it.what == What::GiveBack) {
            let parameters: [&(dyn ToSql + Sync); 4] = [&policies, &keys, &starts, &units];
            let sent = client.execute(&statements.give_back, &parameters);
            return sent.await.map(|_| Counts::default());
        }
        let ends: Vec<_> = entries().map(|it| system_time(it.window.end)).collect();
        let limits: Vec<_> = entries().map(|it| number(it.what.limit())).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&policies, &keys, &starts, &ends, &units, &limits];
        let rows = client.query(&statements.reserve, &parameters).await?;
        if let Some(row) = rows.first() {
            statements.clock.heard(micros(row.get(6)));
        }
        Ok(Counts(rows.iter().map(counted).collect()))
    }

    /// Reports the result to each request. Returns what must be given back because its request gave up.
    pub(super) fn settle(self, sent: &Result<Counts, StoreFault>) -> Vec<Asked> {
        let mut unclaimed = Vec::new();
        for (name, entry) in self.0 {
            let counted = match (sent, entry.what) {
                (Err(fault), _) => Err(fault.clone()),
                (Ok(_), What::GiveBack) => Ok(Counted {
                    window: entry.window,
                    used: 0,
                    granted: 0,
                }),
                (Ok(Counts(counts)), What::Reserve { .. }) => {
                    let left_out =
                        || StoreFault::Refused("the server left a counter out".to_owned());
                    counts.get(&name).copied().ok_or_else(left_out)
                }
            };
            for (index, reply) in entry.replies.into_iter().enumerate() {
                let granted = counted.clone().map(|counted| counted.granted(index as u64));
                if let Err(Ok(Granted {
                    used: Some(_),
                    window,
                })) = reply.send(granted)
                {
                    let (reply, _) = oneshot::channel();
                    unclaimed.push(Asked {
                        what: What::GiveBack,
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

impl What {
    fn limit(self) -> u64 {
        match self {
            Self::Reserve { limit } => limit,
            Self::GiveBack => 0,
        }
    }
}

impl Counted {
    /// The result for one of the requests. The granted units are the last of the counted ones.
    fn granted(self, index: u64) -> Granted {
        let used = self.used.saturating_sub(self.granted) + index + 1;
        Granted {
            used: (used <= self.used).then_some(used),
            window: self.window,
        }
    }
}

fn counted(row: &Row) -> ((String, String), Counted) {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let counted = Counted {
        window: Window {
            start: timestamp(row.get(2)),
            end: timestamp(row.get(3)),
        },
        used: unsigned(row.get(4)),
        granted: unsigned(row.get(5)),
    };
    ((row.get(0), row.get(1)), counted)
}

/// A limit beyond `bigint` is unlimited.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
