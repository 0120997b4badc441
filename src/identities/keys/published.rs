//! The key set that an issuer publishes, kept up to date.
//!
//! One task fetches: at start, in the background before the set grows old, and when a token needs it. A token needs it
//! if it names a key that the set lacks, or if the key that it names does not verify it. Such tokens lead to one fetch in
//! [`DEMAND_PAUSE`], however many there are, and a `kid` that fetch after fetch lacks leads to one ever more rarely. A
//! request waits for the fetch that is under way for its token, and for no other. While the issuer is down, the last
//! good set serves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, IdentityName};
use quick_cache::sync::Cache;
use tokio::sync::{Notify, Semaphore, watch};

use super::{
    key::Key,
    key_set::KeySet,
    location::{KeySetSource, LEAST_AGE, Location},
};
use crate::{
    identities::limits::Attempt,
    outbound::{
        Outbound,
        digest::{Digest, digest},
        in_flight::wait_without_place,
    },
    telemetry::{CallResult, Metrics},
};

/// How often tokens lead to a fetch.
const DEMAND_PAUSE: Duration = Duration::from_secs(5);

/// How often a token leads to a fetch whose `kid` every fetch has lacked.
const LONGEST_KID_PAUSE: Duration = Duration::from_secs(10 * 60);

/// How many `kid`s that fetches lacked are remembered.
const MISSED_KIDS: usize = 1000;

/// How many requests wait for a fetch at most.
const MAX_WAITING: usize = 1000;

/// How long a request waits for a fetch: longer than one of two responses can take.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The longest that the task sleeps at once: time is what the injected clock says, which may jump.
const STEP: Duration = Duration::from_millis(500);

/// A key set that is kept up to date by `PublishedKeys::keep`.
pub struct PublishedKeys {
    identity: IdentityName,
    source: KeySetSource,
    algorithms: Vec<Algorithm>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    /// Wakes the task when a fetch is demanded.
    demand: Notify,
    /// When the last fetch was demanded, or when it was done.
    demanded_at: Mutex<Option<Duration>>,
    /// Of requests that wait for a fetch.
    places: Semaphore,
    /// By digests of `kid`s.
    missed: Cache<Digest, Missed>,
}

/// A `kid` that successful fetches lacked.
#[derive(Clone, Copy)]
struct Missed {
    /// How many of them.
    fetches: u32,
    /// The latest of them.
    latest: u64,
    /// Until when it leads to no fetch.
    until: Duration,
}

/// What is known of the set.
#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// Why the last fetch failed, if it did.
    failure: Option<String>,
    /// How many fetches somebody waits for, and how many of these are done.
    demanded: u64,
    served: u64,
}

/// How a published set stands, for readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysState {
    /// How many keys there are; none before the first fetch went well.
    pub keys: usize,
    /// Why the last fetch failed, if it did.
    pub failure: Option<String>,
}

/// The keys cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys cannot be fetched: {0}")]
pub(crate) struct KeysUnavailable(String);

/// Why a key is not looked for.
pub(crate) enum NoKeys {
    /// There are none.
    Unavailable(KeysUnavailable),
    /// They would have to be fetched, and the client may cause no fetch.
    Refused(Denial),
}

impl From<KeysUnavailable> for NoKeys {
    fn from(error: KeysUnavailable) -> Self {
        Self::Unavailable(error)
    }
}

impl From<Denial> for NoKeys {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

impl PublishedKeys {
    /// Whether these are the keys that are published at `location` for `algorithms`.
    pub(crate) fn are_of(&self, location: &Location, algorithms: &[Algorithm]) -> bool {
        self.source.is_at(location) && self.algorithms == algorithms
    }

    /// Keys that are yet to be fetched: [`keep`](Self::keep) is to run.
    #[must_use]
    pub(crate) fn new(
        identity: IdentityName,
        location: Location,
        algorithms: Vec<Algorithm>,
        outbound: &Outbound,
    ) -> Self {
        // The first fetch is demanded by the start.
        let state = State {
            demanded: 1,
            ..State::default()
        };
        Self {
            identity,
            source: KeySetSource::new(location, outbound.http.clone()),
            algorithms,
            clock: outbound.clock.clone(),
            metrics: outbound.metrics.clone(),
            state: watch::Sender::new(state),
            demand: Notify::new(),
            demanded_at: Mutex::new(None),
            places: Semaphore::new(MAX_WAITING),
            missed: Cache::new(MISSED_KIDS),
        }
    }

    /// How the set stands.
    #[must_use]
    pub(crate) fn state(&self) -> KeysState {
        let state = self.state.borrow();
        KeysState {
            keys: state.set.as_ref().map_or(0, |set| set.len()),
            failure: state.failure.clone(),
        }
    }

    /// Finds a key, fetching the set again if it lacks the key.
    ///
    /// # Errors
    ///
    /// When no set has ever been fetched, or when the client may cause no fetch. While a set serves, a key that it lacks
    /// is unknown.
    pub(crate) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        attempt: &Attempt<'_>,
    ) -> Result<Option<Arc<Key>>, NoKeys> {
        // Taken first: a set that is published from here on may have the key, and demands no fetch.
        let served = self.state.borrow().served;
        if let Some(key) = self.known(kid, algorithm) {
            return Ok(Some(key));
        }
        let missed = digest([kid.unwrap_or_default()]);
        let pauses = self.missed.get(&missed);
        if pauses.is_some_and(|missed| self.clock.elapsed() < missed.until) {
            return Ok(None);
        }
        self.refetch(served, attempt).await?;
        let key = self.known(kid, algorithm);
        if key.is_none() {
            self.note_missing(missed);
        }
        Ok(key)
    }

    /// Looks for another key under the same `kid`, after `failed` has not verified a token: issuers replace keys.
    ///
    /// # Errors
    ///
    /// As of [`find`](Self::find).
    pub(crate) async fn find_another(
        &self,
        kid: Option<&str>,
        failed: &Arc<Key>,
        attempt: &Attempt<'_>,
    ) -> Result<Option<Arc<Key>>, NoKeys> {
        let served = self.state.borrow().served;
        self.refetch(served, attempt).await?;
        let key = self.known(kid, failed.algorithm());
        Ok(key.filter(|key| !Arc::ptr_eq(key, failed)))
    }

    fn known(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let state = self.state.borrow();
        state.set.as_ref()?.find(kid, algorithm).cloned()
    }

    /// Demands a fetch, if one is due and none was served since `served`, and waits for the one that is under way.
    ///
    /// # Errors
    ///
    /// When no set has ever been fetched, or when the client may cause no fetch.
    async fn refetch(&self, served: u64, attempt: &Attempt<'_>) -> Result<(), NoKeys> {
        self.demand(served, attempt)?;
        let mut states = self.state.subscribe();
        let wanted = states.borrow().demanded;
        // Given back also by a request whose client goes away.
        if let Ok(_place) = self.places.try_acquire() {
            let served = states.wait_for(|state| state.served >= wanted);
            // Nobody keeps a set whose identity has left the config.
            let served = tokio::time::timeout(LONGEST_WAIT, served);
            let _ = wait_without_place(served).await;
        }
        let state = self.state.borrow();
        match (&state.set, &state.failure) {
            (Some(_), _) => Ok(()),
            (None, Some(failure)) => Err(KeysUnavailable(failure.clone()).into()),
            (None, None) => Err(KeysUnavailable("they were not fetched in time".to_owned()).into()),
        }
    }

    /// Demands a fetch, unless one was demanded a short while ago.
    fn demand(&self, served: u64, attempt: &Attempt<'_>) -> Result<(), Denial> {
        let now = self.clock.elapsed();
        let mut demanded_at = self.demanded_at();
        let is_due = demanded_at.is_none_or(|at| now.saturating_sub(at) >= DEMAND_PAUSE);
        // A fetch that is under way serves, too, the one at start among them, and so does one that has just ended.
        let is_served = {
            let state = self.state.borrow();
            state.demanded > state.served || state.served != served
        };
        if is_due && !is_served {
            attempt.may_fetch()?;
            *demanded_at = Some(now);
            self.state.send_modify(|state| state.demanded += 1);
            self.demand.notify_one();
        }
        Ok(())
    }

    fn demanded_at(&self) -> MutexGuard<'_, Option<Duration>> {
        self.demanded_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the latest set lacks a `kid`. If it was fetched without a failure, and the one before it lacked the
    /// `kid`, too, that `kid` pauses.
    fn note_missing(&self, kid: Digest) {
        let (latest, has_failed) = {
            let state = self.state.borrow();
            (state.served, state.failure.is_some())
        };
        let before = self.missed.get(&kid);
        if has_failed || before.is_some_and(|before| before.latest == latest) {
            return;
        }
        let fetches = before.map_or(1, |before| before.fetches.saturating_add(1));
        let pause = match fetches {
            0 | 1 => Duration::ZERO,
            fetches => (DEMAND_PAUSE * 2_u32.saturating_pow(fetches - 1)).min(LONGEST_KID_PAUSE),
        };
        let missed = Missed {
            fetches,
            latest,
            until: self.clock.elapsed() + pause,
        };
        self.missed.insert(kid, missed);
    }

    /// Keeps the set up to date for as long as it is polled.
    pub(crate) async fn keep(&self) {
        let retries = || {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(LEAST_AGE)
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut waits: ExponentialBackoff = retries();
        let mut jwks_url = None;
        loop {
            let demanded = self.state.borrow().demanded;
            let fetched = self.source.fetch(&mut jwks_url).await;
            let wait = match &fetched {
                Ok((_, age)) => {
                    waits = retries();
                    // Some time before it is due, so that gates that started together do not come together.
                    age.mul_f64(0.8 + 0.2 * fastrand::f64())
                }
                Err(_) => waits.next().unwrap_or(LEAST_AGE),
            };
            self.publish(fetched.map(|(text, _)| text), demanded);
            self.wait(wait).await;
        }
    }

    /// Takes what was fetched into use.
    fn publish(&self, fetched: Result<Bytes, String>, demanded: u64) {
        let before = self.state.borrow().set.clone();
        let read = fetched.and_then(|text| {
            KeySet::parse(&text, &self.algorithms, before.as_deref())
                .map_err(|reason| format!("the answer {reason}"))
        });
        let identity = self.identity.as_str();
        let (name, result) = (self.identity.clone(), CallResult::of(&read));
        self.metrics.identity_calls(name, result).inc();
        let read = match read {
            Ok((set, skipped)) => {
                let is_news = self.state.borrow().failure.is_some()
                    || before.is_none_or(|before| !before.has_the_keys_of(&set));
                if is_news {
                    for key in skipped.iter().take(10) {
                        tracing::warn!(
                            identity,
                            kid = key.kid,
                            reason = key.reason,
                            "a key is skipped"
                        );
                    }
                    tracing::info!(
                        identity,
                        keys = set.len(),
                        skipped = skipped.len(),
                        "keys fetched"
                    );
                }
                Ok(Arc::new(set))
            }
            Err(error) => {
                let serving = before.as_ref().map_or(0, |set| set.len());
                // Said once: how often it is tried while the issuer is down, strangers' tokens decide, too.
                if self.state.borrow().failure.is_none() {
                    tracing::error!(identity, error, serving, "keys cannot be fetched");
                } else {
                    tracing::debug!(identity, error, serving, "keys still cannot be fetched");
                }
                Err(error)
            }
        };
        if demanded > self.state.borrow().served
            && let Some(demanded_at) = &mut *self.demanded_at()
        {
            *demanded_at = self.clock.elapsed();
        }
        self.state.send_modify(|state| {
            match read {
                Ok(set) => {
                    if let Some(before) = state.set.replace(set.clone()) {
                        before.retire_all_but(&set);
                    }
                    state.failure = None;
                }
                Err(error) => state.failure = Some(error),
            }
            state.served = demanded;
        });
    }

    /// Waits until `time` is over, or somebody demands a fetch.
    async fn wait(&self, time: Duration) {
        let until = self.clock.elapsed() + time;
        loop {
            let left = until.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                return;
            }
            let demanded = tokio::time::timeout(left.min(STEP), self.demand.notified());
            if demanded.await.is_ok() {
                return;
            }
        }
    }
}
