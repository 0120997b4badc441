//! Rate limits in memory, by governor. Their cells are bounded for any number of keys, and without a sweep.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    mem,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{self, Clock as _},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::StateStore,
};
use parking_lot::{Mutex, MutexGuard};

use crate::{AttemptResult, Clock, Interval, Pass};

/// The parameters of a limit: `limit` attempts return in each `period`, and up to `burst` may come at once. The error
/// says why the limit cannot be counted.
pub(crate) fn quota(
    limit: NonZeroU32,
    period: Interval,
    burst: NonZeroU32,
) -> Result<Quota, &'static str> {
    const LONGEST: u128 = 10 * 366 * 24 * 60 * 60 * 1_000_000_000;

    // Rounded up, so that never more than `limit` return in a period.
    let interval = period.get().as_nanos().div_ceil(limit.get().into());
    if interval * u128::from(burst.get()) > LONGEST {
        return Err("a full burst would take more than ten years to return");
    }
    let quota = u64::try_from(interval).ok();
    let quota = quota.and_then(|interval| Quota::with_period(Duration::from_nanos(interval)));
    let quota = quota.ok_or("the period is too long for this limit")?;
    Ok(quota.allow_burst(burst))
}

/// A limit in memory, exact within the process.
pub(crate) struct MemoryLimit {
    quota: Quota,
    clock: GovernorClock,
    /// The origin of the cells' times.
    start: Nanos,
    hasher: RandomState,
    cells: BoundedState,
    limiter: RateLimiter<Probe, BoundedState, GovernorClock, StateInformationMiddleware>,
}

impl MemoryLimit {
    pub(crate) fn new(quota: Quota, max_keys: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let cells = cells(quota, max_keys, clock.clone());
        Self::with_cells(quota, clock, cells, RandomState::new())
    }

    /// The same limit with new settings. Attempts that are used up stay used up, at most as many as the new settings
    /// have.
    pub(crate) fn changed(&self, quota: Quota, max_keys: NonZeroU32) -> Self {
        let clock = self.clock.0.clone();
        let cells = cells(quota, max_keys, clock.clone());
        let now = self.clock.now();
        let (before, after) = (
            self.quota.replenish_interval().as_nanos(),
            quota.replenish_interval().as_nanos(),
        );
        let all = after * u128::from(quota.burst_size().get());
        cells.take_over(&self.cells, |arrival| {
            // A cell holds the time when all attempts have returned.
            let back_at = (self.start + arrival).as_u64();
            let used = u128::from(back_at.checked_sub(now.as_u64())?);
            let used = (used * after).div_ceil(before).min(all);
            (used > 0).then(|| u64::try_from(used).unwrap_or(u64::MAX).into())
        });
        Self::with_cells(quota, clock, cells, self.hasher.clone())
    }

    fn with_cells(
        quota: Quota,
        clock: Arc<dyn Clock>,
        cells: BoundedState,
        hasher: RandomState,
    ) -> Self {
        let clock = GovernorClock(clock);
        Self {
            quota,
            limiter: RateLimiter::new(quota, cells.clone(), clock.clone()),
            cells,
            // Not earlier than the start of the limiter, so that a change of settings returns no attempts.
            start: clock.now(),
            clock,
            hasher,
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        self.quota
    }

    /// Counts an attempt, if one is left. A [`Pass::Preview`] does not count.
    pub(crate) fn take(&self, key: &str, pass: Pass) -> AttemptResult {
        let probe = Probe {
            cell: self.hasher.hash_one(key),
            pass,
        };
        let burst = self.quota.burst_size().get();
        match self.limiter.check_key(&probe) {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                AttemptResult::Allowed {
                    remaining,
                    resets_in: self.quota.replenish_interval() * (burst - remaining),
                }
            }
            Err(not_until) => {
                let retry_after = not_until.wait_time_from(self.clock.now());
                AttemptResult::Denied {
                    retry_after,
                    resets_in: retry_after + self.quota.replenish_interval() * (burst - 1),
                }
            }
        }
    }
}

fn cells(quota: Quota, max_keys: NonZeroU32, clock: Arc<dyn Clock>) -> BoundedState {
    let full_burst = quota.replenish_interval() * quota.burst_size().get();
    BoundedState::new(clock, max_keys.get(), full_burst)
}

const SHARDS: usize = 16;

/// Governor's clock, driven by [`Clock`].
#[derive(Clone)]
struct GovernorClock(Arc<dyn Clock>);

impl clock::Clock for GovernorClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// Which cell to test, and whether to take from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Probe {
    /// The hash of the counter's key. Each process has its own hash key, so clients cannot cause a collision. With a
    /// million keys, the probability that any two share a cell is 1 in 30 million. Such keys are limited together.
    cell: u64,
    pass: Pass,
}

/// The state store of one limiter.
///
/// A cell that was not used for as long as a full burst takes to return equals a new one. So each shard has two
/// generations: used cells move to the young one, and after that time the old one is dropped as a whole. A live cell is
/// never dropped. Keys that arrive while `max_keys` cells are alive share one cell, and are limited together.
#[derive(Clone)]
struct BoundedState(Arc<Cells>);

/// By the hash of the key, which is not hashed again.
type CellMap = HashMap<u64, Nanos, BuildHasherDefault<IsHash>>;

/// A hasher for keys that are hashes already.
#[derive(Default)]
struct IsHash(u64);

impl Hasher for IsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Cells {
    clock: Arc<dyn Clock>,
    shards: [Mutex<Shard>; SHARDS],
    overflow: Mutex<Option<Nanos>>,
    cells: AtomicU32,
    max_keys: u32,
    generation: Duration,
}

struct Shard {
    young: CellMap,
    old: CellMap,
    rotated: Duration,
}

impl BoundedState {
    /// `generation` is how long a full burst takes to return.
    fn new(clock: Arc<dyn Clock>, max_keys: u32, generation: Duration) -> Self {
        let rotated = clock.elapsed();
        Self(Arc::new(Cells {
            clock,
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    young: CellMap::default(),
                    old: CellMap::default(),
                    rotated,
                })
            }),
            overflow: Mutex::new(None),
            cells: AtomicU32::new(0),
            max_keys,
            generation,
        }))
    }

    /// Takes over the cells of an earlier limiter, converted by `convert`. Cells without a result are full again.
    fn take_over(&self, earlier: &Self, convert: impl Fn(Nanos) -> Option<Nanos>) {
        let (cells, earlier) = (&*self.0, &*earlier.0);
        for (shard, earlier) in cells.shards.iter().zip(&earlier.shards) {
            let earlier = earlier.lock();
            let used = earlier.old.iter().chain(&earlier.young);
            let used = used.filter_map(|(cell, arrival)| Some((*cell, convert(*arrival)?)));
            let mut shard = shard.lock();
            shard.young.extend(used);
            let count = shard.young.len() as u32;
            cells.cells.fetch_add(count, Ordering::Relaxed);
        }
        *cells.overflow.lock() = earlier.overflow.lock().and_then(convert);
    }
}

impl Cells {
    fn shard(&self, cell: u64) -> MutexGuard<'_, Shard> {
        // Uses the middle bits, because the map inside uses the lowest and the highest.
        let index = (cell >> 40) as usize % SHARDS;
        let mut shard = self.shards[index].lock();
        self.rotate(&mut shard);
        shard
    }

    /// Drops cells that equal new ones.
    fn rotate(&self, shard: &mut Shard) {
        let now = self.clock.elapsed();
        let age = now.saturating_sub(shard.rotated);
        if age < self.generation {
            return;
        }
        shard.rotated = now;
        let mut dropped = mem::replace(&mut shard.old, mem::take(&mut shard.young)).len();
        if age >= 2 * self.generation {
            dropped += mem::take(&mut shard.old).len();
        }
        // Each cell was added to the count before it was inserted, so the count stays above zero.
        self.cells.fetch_sub(dropped as u32, Ordering::Relaxed);
    }

    /// Counts one more cell, if there is room.
    fn admit(&self) -> bool {
        let admit = || {
            self.cells
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |cells| {
                    (cells < self.max_keys).then_some(cells + 1)
                })
                .is_ok()
        };
        if admit() {
            return true;
        }
        for shard in &self.shards {
            self.rotate(&mut shard.lock());
        }
        admit()
    }
}

impl StateStore for BoundedState {
    type Key = Probe;

    fn measure_and_replace<T, F, E>(&self, probe: &Probe, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let take = probe.pass != Pass::Preview;
        let cells = &*self.0;
        let mut shard = cells.shard(probe.cell);
        let young = shard.young.get(&probe.cell).copied();
        if let Some(arrival) = young.or_else(|| shard.old.get(&probe.cell).copied()) {
            let (answer, next) = measure(Some(arrival))?;
            if take {
                if young.is_none() {
                    shard.old.remove(&probe.cell);
                }
                shard.young.insert(probe.cell, next);
            }
            return Ok(answer);
        }
        if !take {
            return measure(None).map(|(answer, _)| answer);
        }
        // No shard may be locked here, because `admit` may rotate any of them.
        drop(shard);
        if !cells.admit() {
            let mut overflow = cells.overflow.lock();
            let (answer, next) = measure(*overflow)?;
            *overflow = Some(next);
            return Ok(answer);
        }
        let mut shard = cells.shard(probe.cell);
        let meanwhile = shard.young.get(&probe.cell).copied();
        let measured = measure(meanwhile);
        if meanwhile.is_some() || measured.is_err() {
            cells.cells.fetch_sub(1, Ordering::Relaxed);
        }
        let (answer, next) = measured?;
        shard.young.insert(probe.cell, next);
        Ok(answer)
    }
}
