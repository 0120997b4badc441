//! What many requests ask of the database, put together.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use policies::{Counter, Window};
use tokio::sync::oneshot;
use tokio_postgres::{Error, Row, types::ToSql};

use super::lane::Statements;
use crate::stores::{fault::StoreFault, shared_quotas::Granted};

/// The most that one batch carries.
const MAX_ASKED: usize = 500;

/// What one request asks.
pub(super) enum Asked {
    /// One unit, unless the limit is reached.
    Reserve {
        counter: Counter,
        window: Window,
        limit: u64,
        reply: oneshot::Sender<Result<Granted, StoreFault>>,
    },
    /// To give one unit back that was counted in the window of this start.
    GiveBack {
        counter: Counter,
        start: Timestamp,
        /// Nobody waits where it is given back for one who gave up.
        reply: Option<oneshot::Sender<Result<(), StoreFault>>>,
    },
}

/// A reservation for each of some requests, on one counter.
struct Wanted {
    window: Window,
    limit: u64,
    replies: Vec<oneshot::Sender<Result<Granted, StoreFault>>>,
}

/// A unit to give back.
struct Given {
    counter: Counter,
    start: Timestamp,
    reply: Option<oneshot::Sender<Result<(), StoreFault>>>,
}

/// What travels together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) reservations: Reservations,
    pub(super) returns: Returns,
}

/// What one statement reserves: by policy and key, in their order.
#[derive(Default)]
pub(super) struct Reservations(BTreeMap<(String, String), (Counter, Wanted)>);

/// What one statement gives back.
#[derive(Default)]
pub(super) struct Returns(Vec<Given>);

/// What one statement carries for many requests.
pub(super) trait Part: Sized {
    /// What the server answers.
    type Sent;

    /// How many counters it is about.
    fn len(&self) -> usize;

    /// Two halves: if the server refuses the whole, it has done nothing of it, and the half that it refuses is
    /// another one's.
    fn split(self) -> [Self; 2];

    /// The counters, by policy and key.
    fn names(&self) -> (Vec<&str>, Vec<String>);

    /// Takes what is about some counters out of it.
    fn take_out(&mut self, counters: &HashSet<(String, String)>) -> Self;

    async fn send(&self, statements: &Statements) -> Result<Self::Sent, Error>;

    /// Tells every request what came of it. Returns what is to be given back because the request gave up.
    fn settle(self, sent: &Result<Self::Sent, StoreFault>) -> Vec<Asked>;
}

/// The counters after a statement.
pub(super) struct Counts(HashMap<(String, String), Counted>);

struct Counted {
    window: Window,
    used: u64,
    granted: u64,
}

/// A counter's key, as the database holds it: a text of its own has no zero byte. `%` is escaped already.
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

/// Windows come back as they were written; what is out of the calendar is its end.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn micros(time: SystemTime) -> i64 {
    timestamp(time).as_microsecond()
}

impl Batch {
    /// Takes as much as fits out of what is asked. A counter has one window and one limit within a batch; a request
    /// with others waits for the next batch.
    pub(super) fn take(asked: &mut Vec<Asked>) -> Option<Self> {
        if asked.is_empty() {
            return None;
        }
        let mut batch = Self::default();
        let mut later = Vec::new();
        for (index, asked) in std::mem::take(asked).into_iter().enumerate() {
            if index >= MAX_ASKED {
                later.push(asked);
            } else if let Some(asked) = batch.add(asked) {
                later.push(asked);
            }
        }
        *asked = later;
        Some(batch)
    }

    /// Adds what is asked, or gives it back if it does not fit.
    fn add(&mut self, asked: Asked) -> Option<Asked> {
        match asked {
            Asked::Reserve {
                counter,
                window,
                limit,
                reply,
            } => {
                // A request that gave up before its turn asks for nothing.
                if reply.is_closed() {
                    return None;
                }
                let name = (counter.policy.to_string(), key(&counter));
                match self.reservations.0.entry(name) {
                    Entry::Vacant(entry) => {
                        let replies = vec![reply];
                        let wanted = Wanted {
                            window,
                            limit,
                            replies,
                        };
                        entry.insert((counter, wanted));
                    }
                    Entry::Occupied(mut entry) => {
                        let (_, wanted) = entry.get_mut();
                        if wanted.window != window || wanted.limit != limit {
                            return Some(Asked::Reserve {
                                counter,
                                window,
                                limit,
                                reply,
                            });
                        }
                        wanted.replies.push(reply);
                    }
                }
            }
            Asked::GiveBack {
                counter,
                start,
                reply,
            } => self.returns.0.push(Given {
                counter,
                start,
                reply,
            }),
        }
        None
    }
}

impl Part for Reservations {
    type Sent = Counts;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn split(mut self) -> [Self; 2] {
        let middle = self.0.keys().nth(self.0.len() / 2).cloned();
        let rest = middle.map(|middle| self.0.split_off(&middle));
        [self, Self(rest.unwrap_or_default())]
    }

    fn names(&self) -> (Vec<&str>, Vec<String>) {
        let names = self.0.keys();
        names
            .map(|(policy, key)| (policy.as_str(), key.clone()))
            .unzip()
    }

    fn take_out(&mut self, counters: &HashSet<(String, String)>) -> Self {
        let taken = self.0.extract_if(.., |name, _| counters.contains(name));
        Self(taken.collect())
    }

    async fn send(&self, statements: &Statements) -> Result<Counts, Error> {
        let mut policies: Vec<&str> = Vec::new();
        let mut keys: Vec<&str> = Vec::new();
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        let (mut wanted, mut limits) = (Vec::new(), Vec::new());
        for ((policy, key), (_, reservation)) in &self.0 {
            policies.push(policy);
            keys.push(key);
            starts.push(system_time(reservation.window.start));
            ends.push(system_time(reservation.window.end));
            wanted.push(number(reservation.replies.len() as u64));
            limits.push(number(reservation.limit));
        }
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&policies, &keys, &starts, &ends, &wanted, &limits];
        let client = &statements.session.client;
        let rows = client.query(&statements.reserve, &parameters).await?;
        if let Some(row) = rows.first() {
            statements.clock.heard(micros(row.get(6)));
        }
        Ok(Counts::read(&rows))
    }

    fn settle(self, sent: &Result<Counts, StoreFault>) -> Vec<Asked> {
        let mut unclaimed = Vec::new();
        for (name, (counter, wanted)) in self.0 {
            let counted = sent.as_ref().map_err(Clone::clone).and_then(|counts| {
                let counted = counts.0.get(&name);
                counted
                    .ok_or_else(|| StoreFault::Refused("the server left a counter out".to_owned()))
            });
            for (index, reply) in wanted.replies.into_iter().enumerate() {
                let granted = counted.as_ref().map_err(Clone::clone).map(|counted| {
                    // The units that were granted are the last of those that are counted.
                    let before = counted.used.saturating_sub(counted.granted);
                    let used = before + index as u64 + 1;
                    Granted {
                        used: (used <= counted.used).then_some(used),
                        window: counted.window,
                    }
                });
                if let Err(Ok(Granted {
                    used: Some(_),
                    window,
                })) = reply.send(granted)
                {
                    unclaimed.push(Asked::GiveBack {
                        counter: counter.clone(),
                        start: window.start,
                        reply: None,
                    });
                }
            }
        }
        unclaimed
    }
}

impl Part for Returns {
    type Sent = ();

    fn len(&self) -> usize {
        self.0.len()
    }

    fn split(mut self) -> [Self; 2] {
        let rest = self.0.split_off(self.0.len() / 2);
        [self, Self(rest)]
    }

    fn names(&self) -> (Vec<&str>, Vec<String>) {
        let counters = self.0.iter().map(|given| &given.counter);
        counters
            .map(|counter| (counter.policy.as_str(), key(counter)))
            .unzip()
    }

    fn take_out(&mut self, counters: &HashSet<(String, String)>) -> Self {
        let is_one = |given: &mut Given| {
            let counter = &given.counter;
            counters.contains(&(counter.policy.to_string(), key(counter)))
        };
        Self(self.0.extract_if(.., is_one).collect())
    }

    async fn send(&self, statements: &Statements) -> Result<(), Error> {
        let (policies, keys) = self.names();
        let starts: Vec<_> = self.0.iter().map(|it| system_time(it.start)).collect();
        let units = vec![1_i64; self.0.len()];
        let parameters: [&(dyn ToSql + Sync); 4] = [&policies, &keys, &starts, &units];
        let client = &statements.session.client;
        let sent = client.execute(&statements.give_back, &parameters);
        sent.await.map(drop)
    }

    fn settle(self, sent: &Result<(), StoreFault>) -> Vec<Asked> {
        for reply in self.0.into_iter().filter_map(|given| given.reply) {
            // A request that gave it back may have given up.
            let _ = reply.send(sent.clone());
        }
        Vec::new()
    }
}

impl Counts {
    fn read(rows: &[Row]) -> Self {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        let counted = |row: &Row| {
            let counted = Counted {
                window: Window {
                    start: timestamp(row.get(2)),
                    end: timestamp(row.get(3)),
                },
                used: unsigned(row.get(4)),
                granted: unsigned(row.get(5)),
            };
            ((row.get(0), row.get(1)), counted)
        };
        Self(rows.iter().map(counted).collect())
    }
}

/// A `bigint`; a limit beyond it is none.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
