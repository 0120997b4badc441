//! The cells of a rate limit: bounded for any number of keys, and without a sweep.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{clock, nanos::Nanos, state::StateStore};

use crate::{Clock, Pass};

const SHARDS: usize = 16;

/// Governor's clock, driven by [`Clock`].
#[derive(Clone)]
pub(crate) struct GovernorClock(pub(crate) Arc<dyn Clock>);

impl clock::Clock for GovernorClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// Which cell to test, and whether to take from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Probe {
    /// The hash of the counter's key. Each process has its own hash key, so clients cannot cause a collision. With a
    /// million keys, the probability that any two share a cell is 1 in 30 million. Such keys are limited together.
    pub(crate) cell: u64,
    pub(crate) pass: Pass,
}

/// The state store of one limiter.
///
/// A cell that was not used for as long as a full burst takes to return equals a new one. So each shard has two
/// generations: used cells move to the young one, and after that time the old one is dropped as a whole. A live cell is
/// never dropped. Keys that arrive while `max_keys` cells are alive share one cell, and are limited together.
#[derive(Clone)]
pub(crate) struct BoundedState(Arc<Cells>);

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
    pub(crate) fn new(clock: Arc<dyn Clock>, max_keys: u32, generation: Duration) -> Self {
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
    pub(crate) fn take_over(&self, earlier: &Self, convert: impl Fn(Nanos) -> Option<Nanos>) {
        let (cells, earlier) = (&*self.0, &*earlier.0);
        for (shard, earlier) in cells.shards.iter().zip(&earlier.shards) {
            let earlier = lock(earlier);
            let used = earlier.old.iter().chain(&earlier.young);
            let used = used.filter_map(|(cell, arrival)| Some((*cell, convert(*arrival)?)));
            let mut shard = lock(shard);
            shard.young.extend(used);
            let count = shard.young.len() as u32;
            cells.cells.fetch_add(count, Ordering::Relaxed);
        }
        *lock(&cells.overflow) = lock(&earlier.overflow).and_then(convert);
    }
}

impl Cells {
    fn shard(&self, cell: u64) -> MutexGuard<'_, Shard> {
        // Uses the middle bits, because the map inside uses the lowest and the highest.
        let index = (cell >> 40) as usize % SHARDS;
        let mut shard = lock(&self.shards[index]);
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
            self.rotate(&mut lock(shard));
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
        let take = probe.pass == Pass::Issue;
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
            let mut overflow = lock(&cells.overflow);
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

/// Ignores poisoning, because a panic leaves the values consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
