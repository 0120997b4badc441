//! A store of quotas in memory, which logs its calls and can be told to fail.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::future::{Either, Ready, ready};
use jiff::Timestamp;
use policies::{BoxFuture, Clock, Counter, Fault, Hold, QuotaStore, Reservation, Window};

use crate::scripted::store_is_down;

/// A store that keeps what every store must keep: its windows follow the requested ones, and never go back.
#[derive(Clone, Default)]
pub(crate) struct MemoryQuotas(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    counters: HashMap<Counter, (Window, u64)>,
    log: Vec<String>,
    /// The time of the store, if it has its own clock.
    time: Option<Timestamp>,
    failing: Option<Failing>,
}

/// What of the store fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    Clock,
    Counters,
}

impl State {
    fn log(&mut self, call: &str, counter: &Counter) -> Result<(), Fault> {
        self.log
            .push(format!("{call} {}/{}", counter.policy, counter.key));
        if self.failing == Some(Failing::Counters) {
            return Err(store_is_down());
        }
        Ok(())
    }

    /// The counter in `window`, or in the later window that it is in.
    fn counter(&mut self, counter: Counter, window: Window) -> &mut (Window, u64) {
        let counted = self.counters.entry(counter).or_insert((window, 0));
        *counted = counted.0.follow(counted.1, window);
        counted
    }
}

impl MemoryQuotas {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Takes the time from a clock of its own.
    pub(crate) fn set_time(&self, time: &str) {
        self.state().time = Some(time.parse().unwrap());
    }

    pub(crate) fn fail(&self, failing: Failing) {
        self.state().failing = Some(failing);
    }

    /// The calls since the last time, in order.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

impl QuotaStore for MemoryQuotas {
    fn now<'a>(
        &'a self,
        clock: &'a dyn Clock,
    ) -> Either<Ready<Result<Timestamp, Fault>>, BoxFuture<'a, Timestamp>> {
        let state = self.state();
        Either::Right(Box::pin(ready(match (state.failing, state.time) {
            (Some(Failing::Clock), _) => Err(store_is_down()),
            (_, Some(time)) => Ok(time),
            (_, None) => Ok(clock.now()),
        })))
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation> {
        Box::pin(async move {
            let mut state = self.state();
            state.log("reserve", &counter)?;
            let (window, used) = state.counter(counter.clone(), window);
            if *used >= limit {
                return Ok(Reservation::Exhausted { window: *window });
            }
            *used += 1;
            Ok(Reservation::Granted {
                used: *used,
                window: *window,
                hold: Box::new(Reserved {
                    store: self.clone(),
                    counter,
                }),
            })
        })
    }

    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        Box::pin(async move {
            let mut state = self.state();
            state.log("used", &counter)?;
            let (window, used) = *state.counter(counter, window);
            Ok((used, window))
        })
    }

    fn give_back(&self, counter: Counter, window: Window) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut state = self.state();
            state.log("give back", &counter)?;
            state.counter(counter, window).1 = 0;
            Ok(())
        })
    }
}

struct Reserved {
    store: MemoryQuotas,
    counter: Counter,
}

impl Hold for Reserved {
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(self.store.state().log("commit", &self.counter)))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        let mut state = self.store.state();
        let released = state.log("release", &self.counter);
        if let Some((_, used)) = state
            .counters
            .get_mut(&self.counter)
            .filter(|_| released.is_ok())
        {
            *used -= 1;
        }
        Box::pin(ready(released))
    }
}
