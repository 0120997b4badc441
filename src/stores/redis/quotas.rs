//! Quotas.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{Counter, Fault, Window};
use redis::Value;

use super::{RedisStore, key};
use crate::{
    stores::{
        fault::StoreFault,
        retention::kept_for,
        shared_quotas::{Granted, SharedCounters},
        store_clock::StoreClock,
    },
    telemetry::Operation,
};

/// Reads a stored counter: three doubles.
fn parse_counter(bytes: &[u8]) -> Result<(u64, Window), StoreFault> {
    // Whole numbers, which a double holds exactly.
    let (doubles, _) = bytes.as_chunks::<8>();
    let numbers = doubles
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes) as i64);
    let [start, end, used] = numbers.collect::<Vec<_>>()[..] else {
        return Err(StoreFault::Refused("a counter has another form".to_owned()));
    };
    let used = u64::try_from(used).unwrap_or_default();
    Ok((used, parse_window(start, end)?))
}

/// From milliseconds.
fn parse_window(start: i64, end: i64) -> Result<Window, StoreFault> {
    let time = |millis| {
        let time = Timestamp::from_millisecond(millis);
        time.map_err(|_| StoreFault::Refused(format!("{millis} is no time")))
    };
    Ok(Window {
        start: time(start)?,
        end: time(end)?,
    })
}

impl SharedCounters for RedisStore {
    fn fault(&self, source: StoreFault) -> Fault {
        self.health().fault(source)
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    async fn ask_time(self: &Arc<Self>) -> Result<(), StoreFault> {
        let command = redis::cmd("TIME");
        let time = async |lane: &mut _| command.query_async::<(i64, i64)>(lane).await;
        let (seconds, micros) = self.ask(Operation::Time, None, true, time).await?;
        self.clock.heard(seconds * 1_000_000 + micros);
        Ok(())
    }

    async fn reserve(
        self: &Arc<Self>,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault> {
        let (start, end) = (window.start.as_millisecond(), window.end.as_millisecond());
        let now = self.clock.now().unwrap_or(window.start);
        let kept = i64::try_from(kept_for(window, now).as_millis()).unwrap_or(i64::MAX);
        let wants_time = u8::from(self.clock.is_due());
        let key = key("quota", counter);
        let mut script = self.scripts.reserve.key(&key);
        script
            .arg(start)
            .arg(end)
            .arg(limit)
            .arg(kept)
            .arg(wants_time);
        let reserve = async |lane: &mut _| script.invoke_async::<Value>(lane).await;
        let reserved = self.ask(Operation::Reserve, Some(&key), false, reserve);
        let reserved = reserved.await?;
        if let Value::Int(used) = reserved {
            let used = u64::try_from(used).ok().filter(|used| *used > 0);
            return Ok(Granted { used, window });
        }
        // The counter's window, which may differ from the requested one, and the server's time.
        let reserved = redis::from_redis_value::<(u64, i64, i64, i64, i64)>(reserved);
        let (used, start, end, seconds, micros) =
            reserved.map_err(|error| StoreFault::Refused(error.to_string()))?;
        self.clock.heard(seconds * 1_000_000 + micros);
        Ok(Granted {
            used: (used > 0).then_some(used),
            window: parse_window(start, end)?,
        })
    }

    async fn read(
        self: &Arc<Self>,
        counter: &Counter,
    ) -> Result<Option<(u64, Window)>, StoreFault> {
        let key = key("quota", counter);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let look = async |lane: &mut _| get.query_async::<Option<Vec<u8>>>(lane).await;
        let row = self.ask(Operation::Look, Some(&key), true, look).await?;
        row.map(|row| parse_counter(&row)).transpose()
    }

    async fn give_back(
        self: &Arc<Self>,
        counter: &Counter,
        unit_of: Option<Window>,
    ) -> Result<(), StoreFault> {
        let (start, units) = match unit_of {
            Some(window) => (window.start.as_millisecond(), "1"),
            None => (0, "all"),
        };
        let key = key("quota", counter);
        let mut script = self.scripts.give_back.key(&key);
        script.arg(start).arg(units);
        let give_back = async |lane: &mut _| script.invoke_async::<()>(lane).await;
        self.ask(Operation::GiveBack, Some(&key), false, give_back)
            .await
    }
}
