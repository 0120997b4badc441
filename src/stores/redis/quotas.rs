//! Quotas.

use futures_util::future::{Either, LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{
    Clock, Counter, Fault, Hold, QuotaStore, Reservation, Reserving, Settling, Telling, Window,
};
use redis::Value;

use super::{Asked, RedisStore, key};
use crate::{
    stores::{fault::StoreFault, retention::kept_for},
    telemetry::Operation,
};

/// A counter as it is kept: three doubles.
struct Row {
    window: Window,
    used: u64,
}

impl Row {
    fn parse(bytes: &[u8]) -> Result<Self, StoreFault> {
        let mut doubles = bytes.chunks_exact(8).map(|double| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(double);
            // Whole numbers, which a double holds exactly.
            f64::from_le_bytes(bytes) as i64
        });
        let mut next = || doubles.next();
        let (start, end, used) = (next(), next(), next());
        let (Some(start), Some(end), Some(used)) = (start, end, used) else {
            return Err(StoreFault::Refused("a counter has another form".to_owned()));
        };
        Ok(Self {
            window: window(start, end)?,
            used: u64::try_from(used).unwrap_or_default(),
        })
    }
}

/// A window by its start and end in milliseconds.
fn window(start: i64, end: i64) -> Result<Window, StoreFault> {
    let time = |millis| {
        let time = Timestamp::from_millisecond(millis);
        time.map_err(|_| StoreFault::Refused(format!("{millis} is no time")))
    };
    Ok(Window {
        start: time(start)?,
        end: time(end)?,
    })
}

/// What the script that reserves says.
struct Reserved {
    /// The units that are counted now; 0 if the limit is reached.
    used: u64,
    /// The window, if it is another one or the time was wanted; and the server's time, in microseconds.
    more: Option<(Window, i64)>,
}

impl Reserved {
    fn parse(value: Value) -> Result<Self, StoreFault> {
        match value {
            Value::Int(used) => Ok(Self {
                used: u64::try_from(used).unwrap_or_default(),
                more: None,
            }),
            value => {
                let (used, start, end, seconds, micros) =
                    redis::from_redis_value::<(u64, i64, i64, i64, i64)>(value)
                        .map_err(|error| StoreFault::Refused(error.to_string()))?;
                Ok(Self {
                    used,
                    more: Some((window(start, end)?, seconds * 1_000_000 + micros)),
                })
            }
        }
    }
}

impl QuotaStore for RedisStore {
    fn now<'a>(&'a self, _: &'a dyn Clock) -> Telling<'a> {
        match self.clock.now() {
            Some(now) => Either::Left(ready(Ok(now))),
            None => Either::Right(Box::pin(async move {
                let command = redis::cmd("TIME");
                let time = async |lane: &mut _| command.query_async::<(i64, i64)>(lane).await;
                let asked = Asked {
                    operation: Operation::Time,
                    key: None,
                    only_reads: true,
                };
                let time = self.ask(asked, time).await;
                let (seconds, micros) = time.map_err(|fault| self.fault(fault))?;
                self.clock.heard(seconds * 1_000_000 + micros);
                Ok(self.clock.now().unwrap_or_default())
            })),
        }
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> Reserving<'_> {
        Box::pin(async move {
            let (start, end) = (window.start.as_millisecond(), window.end.as_millisecond());
            let now = self.clock.now().unwrap_or(window.start);
            let kept = i64::try_from(kept_for(window, now).as_millis()).unwrap_or(i64::MAX);
            let wants_time = u8::from(self.clock.is_due());
            let key = key("quota", &counter);
            let mut script = self.scripts.reserve.key(&key);
            script
                .arg(start)
                .arg(end)
                .arg(limit)
                .arg(kept)
                .arg(wants_time);
            let reserve = async |lane: &mut _| script.invoke_async::<Value>(lane).await;
            let asked = Asked::changes(Operation::Reserve, &key);
            let reserved = self.ask(asked, reserve).await;
            let reserved = reserved.and_then(Reserved::parse);
            let reserved = reserved.map_err(|fault| self.fault(fault))?;
            let window = match reserved.more {
                Some((window, now)) => {
                    self.clock.heard(now);
                    window
                }
                None => window,
            };
            if reserved.used == 0 {
                return Ok(Reservation::Exhausted { window });
            }
            let unit = Unit {
                store: self.clone(),
                counter,
                window,
            };
            Ok(Reservation::Granted {
                hold: Box::new(unit),
                used: reserved.used,
                window,
            })
        })
    }

    fn used(
        &self,
        counter: Counter,
        window: Window,
    ) -> LocalBoxFuture<'_, Result<(u64, Window), Fault>> {
        Box::pin(async move {
            let mut get = redis::cmd("GET");
            let key = key("quota", &counter);
            get.arg(&key);
            let look = async |lane: &mut _| get.query_async::<Option<Vec<u8>>>(lane).await;
            let asked = Asked::reads(Operation::Look, &key);
            let row = self.ask(asked, look).await;
            let row = row.map_err(|fault| self.fault(fault))?;
            let row = row.map(|row| Row::parse(&row)).transpose();
            let row = row.map_err(|fault| self.fault(fault))?;
            // What was counted in an earlier window is over.
            Ok(match row.filter(|row| row.window.start >= window.start) {
                Some(row) => (row.used, row.window),
                None => (0, window),
            })
        })
    }

    fn give_back(&self, counter: Counter, _: Window) -> LocalBoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { self.settle(&counter, 0, "all").await })
    }
}

impl RedisStore {
    async fn settle(&self, counter: &Counter, start: i64, units: &str) -> Result<(), Fault> {
        let key = key("quota", counter);
        let mut script = self.scripts.give_back.key(&key);
        script.arg(start).arg(units);
        let settle = async |lane: &mut _| script.invoke_async::<()>(lane).await;
        let asked = Asked::changes(Operation::GiveBack, &key);
        let settled = self.ask(asked, settle).await;
        settled.map_err(|fault| self.fault(fault))
    }
}

/// A unit that is counted for a request.
struct Unit {
    store: RedisStore,
    counter: Counter,
    window: Window,
}

impl Hold for Unit {
    /// The answer that granted it said that it is counted.
    fn commit(&mut self) -> Settling<'_> {
        Box::pin(ready(Ok(())))
    }

    fn release(self: Box<Self>) -> Settling<'static> {
        Box::pin(async move {
            let start = self.window.start.as_millisecond();
            self.store.settle(&self.counter, start, "1").await
        })
    }
}
