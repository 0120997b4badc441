//! Quotas on a server that several gates share, by its clock.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures_util::future::{Either, LocalBoxFuture, Ready, ready};
use jiff::{SignedDuration, Timestamp};
use policies::{BoxFuture, Clock, Counter, Fault, Hold, QuotaStore, Reservation, Window};

use super::{fault::StoreFault, kind::StoreTime};

#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// How many units are counted, including the new one; `None` if the limit is reached.
    pub(super) used: Option<u64>,
    pub(super) window: Window,
}

/// Implemented for an [`Arc`], so that clones are cheap.
pub(super) trait SharedCounters: Clone + Send + Sync + 'static {
    fn fault(&self, source: StoreFault) -> Fault;

    fn clock(&self) -> &StoreClock;

    /// Reads the server's time, and reports it to the clock.
    async fn read_time(&self) -> Result<(), StoreFault>;

    /// Counts one unit, unless the limit is reached. The unit is counted when this returns.
    async fn reserve(
        &self,
        counter: &Counter,
        window: Window,
        limit: u64,
    ) -> Result<Granted, StoreFault>;

    async fn read(&self, counter: &Counter) -> Result<Option<(u64, Window)>, StoreFault>;

    /// Gives back one unit of the window, or all units if there is none.
    async fn give_back(&self, counter: &Counter, window: Option<Window>) -> Result<(), StoreFault>;
}

pub(super) struct SharedQuotas<C>(pub(super) C);

impl<C: SharedCounters> StoreTime for SharedQuotas<C> {
    fn now(&self) -> LocalBoxFuture<'_, Result<Timestamp, StoreFault>> {
        Box::pin(async {
            self.0.read_time().await?;
            Ok(self.0.clock().now().unwrap_or_default())
        })
    }
}

impl<C: SharedCounters> QuotaStore for SharedQuotas<C> {
    fn now<'a>(
        &'a self,
        _: &'a dyn Clock,
    ) -> Either<Ready<Result<Timestamp, Fault>>, BoxFuture<'a, Timestamp>> {
        match self.0.clock().now() {
            Some(now) => Either::Left(ready(Ok(now))),
            None => Either::Right(Box::pin(async {
                let read = self.0.read_time().await;
                read.map_err(|fault| self.0.fault(fault))?;
                Ok(self.0.clock().now().unwrap_or_default())
            })),
        }
    }

    fn reserve(&self, counter: Counter, window: Window, limit: u64) -> BoxFuture<'_, Reservation> {
        Box::pin(async move {
            let granted = self.0.reserve(&counter, window, limit).await;
            let Granted { used, window } = granted.map_err(|fault| self.0.fault(fault))?;
            let Some(used) = used else {
                return Ok(Reservation::Exhausted { window });
            };
            let unit = ReservedUnit {
                counters: self.0.clone(),
                counter,
                window,
            };
            Ok(Reservation::Granted {
                hold: Box::new(unit),
                used,
                window,
            })
        })
    }

    fn used(&self, counter: Counter, window: Window) -> BoxFuture<'_, (u64, Window)> {
        Box::pin(async move {
            let read = self.0.read(&counter).await;
            let read = read.map_err(|fault| self.0.fault(fault))?;
            Ok(used_in(window, read))
        })
    }

    fn give_back(&self, counter: Counter, _: Window) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let given_back = self.0.give_back(&counter, None).await;
            given_back.map_err(|fault| self.0.fault(fault))
        })
    }
}

/// How many units a stored counter has if `window` is requested, and the window that they count in.
pub(super) fn used_in(window: Window, counted: Option<(u64, Window)>) -> (u64, Window) {
    let Some((used, counted_in)) = counted else {
        return (0, window);
    };
    let (window, used) = counted_in.follow(used, window);
    (used, window)
}

struct ReservedUnit<C> {
    counters: C,
    counter: Counter,
    window: Window,
}

impl<C: SharedCounters> Hold for ReservedUnit<C> {
    /// The server counted the unit when it granted it.
    fn commit(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let given_back = self
                .counters
                .give_back(&self.counter, Some(self.window))
                .await;
            given_back.map_err(|fault| self.counters.fault(fault))
        })
    }
}

/// Follows the clock of a store that several gates share: its last reported time, plus the time elapsed since. So gates
/// whose clocks differ or jump use the same windows.
#[derive(Clone)]
pub(super) struct StoreClock {
    clock: Arc<dyn Clock>,
    /// The store's time minus the elapsed time of `clock`, in microseconds.
    offset: Arc<AtomicI64>,
    /// The elapsed time at the latest report, in microseconds.
    reported_at: Arc<AtomicI64>,
}

/// How long a report is valid, in microseconds.
const MAX_AGE: i64 = 1_000_000;

const UNKNOWN: i64 = i64::MIN;

impl StoreClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            offset: Arc::new(AtomicI64::new(UNKNOWN)),
            reported_at: Arc::default(),
        }
    }

    /// Records the store's time, in microseconds since 1970.
    pub(super) fn report(&self, micros: i64) {
        let elapsed = self.elapsed();
        let offset = micros.saturating_sub(elapsed);
        self.offset.store(offset, Ordering::Relaxed);
        self.reported_at.store(elapsed, Ordering::Relaxed);
    }

    /// Whether the store's time must be read again.
    pub(super) fn is_stale(&self) -> bool {
        self.elapsed() - self.reported_at.load(Ordering::Relaxed) >= MAX_AGE
    }

    /// `None` before the first report.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let offset = self.offset.load(Ordering::Relaxed);
        if offset == UNKNOWN {
            return None;
        }
        Timestamp::UNIX_EPOCH
            .checked_add(SignedDuration::from_micros(offset + self.elapsed()))
            .ok()
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.clock.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}
