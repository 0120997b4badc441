//! Quotas.

use futures_util::future::{Either, LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{
    Clock, Counter, Fault, Hold, QuotaStore, Reservation, Reserving, Settling, Telling, Window,
};

use super::{RedisFault, RedisStore, key};

/// How long a counter is kept after its window, besides the window's own length: so long its clock may be set back
/// without opening a window anew.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// A counter as it is kept.
struct Row {
    window: Window,
    used: u64,
}

impl Row {
    fn parse(text: &str) -> Result<Self, RedisFault> {
        let nonsense = || RedisFault::Nonsense(format!("`{text}` is no counter"));
        let mut parts = text.split(' ');
        let mut next = || parts.next()?.parse::<i64>().ok();
        let (start, end, used) = (next(), next(), next());
        let time = |millis: Option<i64>| Timestamp::from_millisecond(millis?).ok();
        Ok(Self {
            window: Window {
                start: time(start).ok_or_else(nonsense)?,
                end: time(end).ok_or_else(nonsense)?,
            },
            used: used
                .and_then(|used| u64::try_from(used).ok())
                .ok_or_else(nonsense)?,
        })
    }
}

impl QuotaStore for RedisStore {
    fn now<'a>(&'a self, _: &'a dyn Clock) -> Telling<'a> {
        match self.clock.now() {
            Some(now) => Either::Left(ready(Ok(now))),
            None => Either::Right(Box::pin(async move {
                let asked = redis::cmd("TIME");
                let time = async |lane: &mut _| asked.query_async::<(i64, i64)>(lane).await;
                let time = self.connection.run("time", time).await;
                let (seconds, micros) = time.map_err(|fault| self.fault(fault))?;
                self.clock.heard(seconds * 1_000_000 + micros);
                Ok(self.clock.now().unwrap_or_default())
            })),
        }
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> Reserving<'_> {
        Box::pin(async move {
            let (start, end) = (window.start.as_millisecond(), window.end.as_millisecond());
            let now = self.clock.now().unwrap_or(window.start).as_millisecond();
            let kept = (end - now).max(0) + (end - start) + KEPT_MS;
            let mut script = self.scripts.reserve.key(key("quota", &counter));
            script.arg(start).arg(end).arg(limit).arg(kept);
            let reserve =
                async |lane: &mut _| script.invoke_async::<(u8, String, i64, i64)>(lane).await;
            let reserved = self.connection.run("reserve", reserve).await;
            let (granted, row, seconds, micros) = reserved.map_err(|fault| self.fault(fault))?;
            self.clock.heard(seconds * 1_000_000 + micros);
            let row = Row::parse(&row).map_err(|fault| self.fault(fault))?;
            if granted == 0 {
                return Ok(Reservation::Exhausted { window: row.window });
            }
            let unit = Unit {
                store: self.clone(),
                counter,
                window: row.window,
            };
            Ok(Reservation::Granted {
                hold: Box::new(unit),
                used: row.used,
                window: row.window,
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
            get.arg(key("quota", &counter));
            let look = async |lane: &mut _| get.query_async::<Option<String>>(lane).await;
            let row = self.connection.run("look", look).await;
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
        let mut script = self.scripts.give_back.key(key("quota", counter));
        script.arg(start).arg(units);
        let settle = async |lane: &mut _| script.invoke_async::<()>(lane).await;
        let settled = self.connection.run("give_back", settle).await;
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
