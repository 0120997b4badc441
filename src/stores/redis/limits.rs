//! Rate limits.

use std::time::Duration;

use policies::{AttemptResult, BoxFuture, Counter, Pass, Rate, RateLimitStore};

use super::{keys::counter_key, store::RedisStore};
use crate::telemetry::Operation;

impl RateLimitStore for RedisStore {
    fn take(&self, counter: Counter, rate: Rate, pass: Pass) -> BoxFuture<'_, AttemptResult> {
        Box::pin(async move {
            let key = counter_key("limit", &counter);
            let mut script = self.scripts.limit.key(&key);
            script
                .arg(micros(rate.interval()))
                .arg(rate.burst().get())
                .arg(u8::from(pass == Pass::Issue));
            let take = async |connection: &mut _| script.invoke_async::<i64>(connection).await;
            let read_only = pass == Pass::Preview;
            let back_in = self
                .run(Operation::Limit, Some(&key), read_only, take)
                .await;
            let back_in = back_in.map_err(|fault| self.health().fault(fault))?;
            let resets_in = Duration::from_micros(back_in.unsigned_abs());
            Ok(if back_in < 0 {
                rate.denied(resets_in)
            } else {
                rate.allowed(resets_in)
            })
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
