//! What many requests ask of the database, put together.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use policies::{Counter, Window};
use tokio::sync::oneshot;
use tokio_postgres::{Row, types::ToSql};

use crate::stores::QueryError;

/// The most that one batch carries.
const MAX_ASKED: usize = 500;

/// What one request asks.
pub(super) enum Asked {
    /// One unit, unless the limit is reached.
    Reserve {
        counter: Counter,
        window: Window,
        limit: u64,
        reply: oneshot::Sender<Result<Granted, QueryError>>,
    },
    /// To give one unit back that was counted in the window of this start.
    GiveBack {
        counter: Counter,
        start: Timestamp,
        /// Nobody waits where it is given back for one who gave up.
        reply: Option<oneshot::Sender<Result<(), QueryError>>>,
    },
}

/// What a request that reserves is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// The units that are counted, its own included; `None` if the limit is reached.
    pub(super) used: Option<u64>,
    /// The window that it counts in.
    pub(super) window: Window,
}

/// A reservation for each of some requests, on one counter.
struct Wanted {
    window: Window,
    limit: u64,
    replies: Vec<oneshot::Sender<Result<Granted, QueryError>>>,
}

/// Units to give back.
struct Given {
    counter: Counter,
    start: Timestamp,
    reply: Option<oneshot::Sender<Result<(), QueryError>>>,
}

/// What travels together.
#[derive(Default)]
pub(super) struct Batch {
    /// By policy and key, in their order.
    wanted: BTreeMap<(String, String), (Counter, Wanted)>,
    given: Vec<Given>,
}

/// The counters after a batch.
pub(super) struct Counts {
    rows: HashMap<(String, String), Counted>,
    /// The server's time, in microseconds.
    pub(super) now: Option<i64>,
}

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
    /// Takes as much as fits out of what is asked. A counter has one window and one limit within a batch; who asks
    /// it by another waits for the next.
    pub(super) fn take(asked: &mut Vec<Asked>) -> Option<Self> {
        if asked.is_empty() {
            return None;
        }
        let mut batch = Self::default();
        let mut later = Vec::new();
        for (index, asked) in std::mem::take(asked).into_iter().enumerate() {
            if index >= MAX_ASKED {
                later.push(asked);
                continue;
            }
            match asked {
                Asked::Reserve {
                    counter,
                    window,
                    limit,
                    reply,
                } => {
                    // One who gave up before it was his turn asks for nothing.
                    if reply.is_closed() {
                        continue;
                    }
                    match batch
                        .wanted
                        .entry((counter.policy.to_string(), key(&counter)))
                    {
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
                            if wanted.window == window && wanted.limit == limit {
                                wanted.replies.push(reply);
                            } else {
                                later.push(Asked::Reserve {
                                    counter,
                                    window,
                                    limit,
                                    reply,
                                });
                            }
                        }
                    }
                }
                Asked::GiveBack {
                    counter,
                    start,
                    reply,
                } => batch.given.push(Given {
                    counter,
                    start,
                    reply,
                }),
            }
        }
        *asked = later;
        Some(batch)
    }

    pub(super) fn reserves(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub(super) fn gives_back(&self) -> bool {
        !self.given.is_empty()
    }

    /// The parameters of the statement that reserves.
    pub(super) fn reservations(&self) -> Reservations<'_> {
        let mut parameters = Reservations::default();
        for ((policy, key), (_, wanted)) in &self.wanted {
            parameters.policies.push(policy);
            parameters.keys.push(key);
            parameters.starts.push(system_time(wanted.window.start));
            parameters.ends.push(system_time(wanted.window.end));
            parameters.wanted.push(number(wanted.replies.len() as u64));
            parameters.limits.push(number(wanted.limit));
        }
        parameters
    }

    /// The parameters of the statement that gives back.
    pub(super) fn returns(&self) -> Returns<'_> {
        let mut parameters = Returns::default();
        for given in &self.given {
            parameters.policies.push(given.counter.policy.as_str());
            parameters.keys.push(key(&given.counter));
            parameters.starts.push(system_time(given.start));
            parameters.units.push(1);
        }
        parameters
    }

    /// Tells everyone what came of it. Returns what is to be given back, for nobody waits for it any more.
    pub(super) fn settle(self, sent: &Result<Counts, QueryError>) -> Vec<Asked> {
        let mut unclaimed = Vec::new();
        for (name, (counter, wanted)) in self.wanted {
            let counted = match sent {
                Err(error) => Err(error.clone()),
                Ok(counts) => counts
                    .rows
                    .get(&name)
                    .ok_or_else(|| QueryError::Query("the server left a counter out".to_owned())),
            };
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
        for given in self.given {
            if let Some(reply) = given.reply {
                // Whoever gave it back may have given up.
                let _ = reply.send(sent.as_ref().map(drop).map_err(Clone::clone));
            }
        }
        unclaimed
    }
}

impl Counts {
    pub(super) fn read(rows: &[Row]) -> Self {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            now: rows.first().map(|row| micros(row.get(6))),
            rows: rows
                .iter()
                .map(|row| {
                    let counted = Counted {
                        window: Window {
                            start: timestamp(row.get(2)),
                            end: timestamp(row.get(3)),
                        },
                        used: unsigned(row.get(4)),
                        granted: unsigned(row.get(5)),
                    };
                    ((row.get(0), row.get(1)), counted)
                })
                .collect(),
        }
    }
}

/// A `bigint`; a limit beyond it is none.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Columns of the same length.
#[derive(Default)]
pub(super) struct Reservations<'a> {
    policies: Vec<&'a str>,
    keys: Vec<&'a str>,
    starts: Vec<SystemTime>,
    ends: Vec<SystemTime>,
    wanted: Vec<i64>,
    limits: Vec<i64>,
}

impl Reservations<'_> {
    pub(super) fn as_sql(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.policies,
            &self.keys,
            &self.starts,
            &self.ends,
            &self.wanted,
            &self.limits,
        ]
    }
}

/// Columns of the same length.
#[derive(Default)]
pub(super) struct Returns<'a> {
    policies: Vec<&'a str>,
    keys: Vec<String>,
    starts: Vec<SystemTime>,
    units: Vec<i64>,
}

impl Returns<'_> {
    pub(super) fn as_sql(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.policies, &self.keys, &self.starts, &self.units]
    }
}
