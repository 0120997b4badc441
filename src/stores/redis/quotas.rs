//! Quotas.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{Counter, Fault, Window};
use redis::Value;

use super::{keys::counter_key, store::RedisStore};
use crate::{
    stores::{
        fault::StoreFault,
        retention::retention_of,
        shared_quotas::{Granted, SharedCounters},
        store_clock::StoreClock,
    },
    telemetry::Operation,
};

/// Reads a stored counter: three doubles.
fn parse_counter(bytes: &[u8]) -> Result<(u64, Window), StoreFault> {
    // A double holds whole numbers exactly.
    let (doubles, _) = bytes.as_chunks::<8>();
    let numbers = doubles
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes) as i64);
    let [start, end, used] = numbers.collect::<Vec<_>>()[..] else {
        return Err(StoreFault::Refused(
            "the stored counter is invalid".to_owned(),
        ));
    };
    let used = u64::try_from(used).unwrap_or_default();
    Ok((used, parse_window(start, end)?))
}

/// From milliseconds.
fn parse_window(start: i64, end: i64) -> Result<Window, StoreFault> {
    let time = |millis| {
        let time = Timestamp::from_millisecond(millis);
        time.map_err(|_| StoreFault::Refused(format!("the stored time {millis} is invalid")))
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

    async fn read_time(self: &Arc<Self>) -> Result<(), StoreFault> {
        let command = redis::cmd("TIME");
        let time = async |connection: &mut _| command.query_async::<(i64, i64)>(connection).await;
        let (seconds, micros) = self.run(Operation::Time, None, true, time).await?;
        self.clock.report(seconds * 1_000_000 + micros);
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
        let ttl = i64::try_from(retention_of(window, now).as_millis()).unwrap_or(i64::MAX);
        let wants_time = u8::from(self.clock.is_stale());
        let key = counter_key("quota", counter);
        let mut script = self.scripts.reserve.key(&key);
        script
            .arg(start)
            .arg(end)
            .arg(limit)
            .arg(ttl)
            .arg(wants_time);
        let reserve = async |connection: &mut _| script.invoke_async::<Value>(connection).await;
        let reserved = self.run(Operation::Reserve, Some(&key), false, reserve);
        let reserved = reserved.await?;
        if let Value::Int(used) = reserved {
            let used = u64::try_from(used).ok().filter(|used| *used > 0);
            return Ok(Granted { used, window });
        }
        // The counter's window may differ from the requested one.
        let reserved = redis::from_redis_value::<(u64, i64, i64, i64, i64)>(reserved);
        let (used, start, end, seconds, micros) =
            reserved.map_err(|error| StoreFault::Refused(error.to_string()))?;
        self.clock.report(seconds * 1_000_000 + micros);
        Ok(Granted {
            used: (used > 0).then_some(used),
            window: parse_window(start, end)?,
        })
    }

    async fn read(
        self: &Arc<Self>,
        counter: &Counter,
    ) -> Result<Option<(u64, Window)>, StoreFault> {
        let key = counter_key("quota", counter);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let read = async |connection: &mut _| get.query_async::<Option<Vec<u8>>>(connection).await;
        let row = self.run(Operation::Look, Some(&key), true, read).await?;
        row.map(|row| parse_counter(&row)).transpose()
    }

    async fn give_back(
        self: &Arc<Self>,
        counter: &Counter,
        window: Option<Window>,
    ) -> Result<(), StoreFault> {
        let (start, units) = match window {
            Some(window) => (window.start.as_millisecond(), "1"),
            None => (0, "all"),
        };
        let key = counter_key("quota", counter);
        let mut script = self.scripts.give_back.key(&key);
        script.arg(start).arg(units);
        let give_back = async |connection: &mut _| script.invoke_async::<()>(connection).await;
        self.run(Operation::GiveBack, Some(&key), false, give_back)
            .await
    }
}
