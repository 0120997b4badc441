//! The key set that an issuer publishes.
//!
//! One task fetches the set: at the start, before it becomes stale, and when a token needs it. A token needs a fetch if the
//! set lacks its key, or if its key does not verify it. All such tokens together cause at most one fetch per
//! [`MIN_FETCH_INTERVAL`], and a `kid` that the issuer does not have causes fetches ever more rarely. Only these requests
//! wait for the fetch. While the issuer is down, the last set stays in use.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, IdentityName};
use quick_cache::sync::Cache;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{
    Key,
    jwk::KeyTypes,
    key_set::{KeySet, SkippedKey},
    location::{KeySetSource, Location, MIN_AGE},
};
use crate::{
    identities::limits::FailureTracker,
    outbound::{
        Outbound,
        digest::{Digest, digest},
        in_flight::wait_without_place,
    },
    telemetry::{CallResult, Metrics},
};

/// Between fetches that tokens cause.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(5);

/// Between fetches that a `kid` causes if the issuer never has it.
const MAX_KID_INTERVAL: Duration = Duration::from_secs(10 * 60);

const MAX_MISSING_KIDS: usize = 1000;

/// The most requests that wait for a fetch.
const MAX_WAITING: usize = 1000;

/// Longer than a fetch, which may need two responses.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// The longest sleep of the task, because the injected clock may jump.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// A key set that `refresh` keeps up to date.
pub struct PublishedKeys {
    identity: IdentityName,
    pub(super) source: KeySetSource,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    /// For the requests that wait for a fetch.
    waiting: Semaphore,
    /// By the digest of a `kid`.
    missing: Cache<Digest, MissingKid>,
}

/// A `kid` that fetched sets lacked.
#[derive(Clone, Copy)]
struct MissingKid {
    fetches: u32,
    /// The number of the last of these fetches.
    last_fetch: u64,
    /// The `kid` causes no fetch before this.
    retry_at: Duration,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// Why the last fetch failed, if it did.
    failure: Option<String>,
    /// The fetches that were requested, and how many of them are complete.
    requested: u64,
    completed: u64,
    /// When a token last requested a fetch, or that fetch completed.
    requested_at: Option<Duration>,
}

/// The state of a published key set, for readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysState {
    /// The number of keys, 0 before the first successful fetch.
    pub keys: usize,
    /// Why the last fetch failed, if it did.
    pub failure: Option<String>,
}

/// Why the gate cannot look for a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot fetch the issuer's keys: {0}")]
    Unavailable(String),
    /// The client may not cause the fetch.
    #[error(transparent)]
    Refused(#[from] Denial),
}

impl PublishedKeys {
    /// Whether these keys come from `location` and have these algorithms.
    pub(crate) fn are_from(&self, location: &Location, algorithms: &[Algorithm]) -> bool {
        self.source.is_at(location) && self.algorithms == algorithms
    }

    /// Fetches nothing before [`refresh`](Self::refresh) runs.
    #[must_use]
    pub(crate) fn new(
        identity: IdentityName,
        location: Location,
        algorithms: Vec<Algorithm>,
        outbound: &Outbound,
    ) -> Self {
        // The start requests the first fetch.
        let state = State {
            requested: 1,
            ..State::default()
        };
        Self {
            identity,
            source: KeySetSource::new(location, outbound.http.clone()),
            algorithms,
            clock: outbound.clock.clone(),
            metrics: outbound.metrics.clone(),
            state: watch::Sender::new(state),
            waiting: Semaphore::new(MAX_WAITING),
            missing: Cache::new(MAX_MISSING_KIDS),
        }
    }

    #[must_use]
    pub(crate) fn state(&self) -> KeysState {
        let state = self.state.borrow();
        KeysState {
            keys: state.set.as_ref().map_or(0, |set| set.len()),
            failure: state.failure.clone(),
        }
    }

    /// Finds the keys for a token, and fetches the set again if it has none.
    ///
    /// # Errors
    ///
    /// If no fetch ever succeeded, or the client may not cause a fetch. A set without the key is not an error.
    pub(crate) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        failures: &FailureTracker<'_>,
    ) -> Result<Vec<Arc<Key>>, KeyError> {
        // Read before the set: if a fetch completes after this, the token requests none.
        let completed = self.state.borrow().completed;
        let keys = self.current(kid, algorithm);
        if !keys.is_empty() {
            return Ok(keys);
        }
        let digest = digest([kid.unwrap_or_default()]);
        let missing = self.missing.get(&digest);
        if missing.is_some_and(|missing| self.clock.elapsed() < missing.retry_at) {
            return Ok(Vec::new());
        }
        self.refetch(completed, failures).await?;
        let keys = self.current(kid, algorithm);
        if keys.is_empty() {
            self.record_missing(digest);
        }
        Ok(keys)
    }

    /// Fetches the set again, and finds the keys for a token that were not among `failed`.
    ///
    /// # Errors
    ///
    /// Like [`find`](Self::find).
    pub(crate) async fn find_replacements(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        failed: &[Arc<Key>],
        failures: &FailureTracker<'_>,
    ) -> Result<Vec<Arc<Key>>, KeyError> {
        let completed = self.state.borrow().completed;
        self.refetch(completed, failures).await?;
        let mut keys = self.current(kid, algorithm);
        keys.retain(|key| !failed.iter().any(|failed| Arc::ptr_eq(key, failed)));
        Ok(keys)
    }

    fn current(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<Arc<Key>> {
        let state = self.state.borrow();
        let set = state.set.as_ref();
        set.map(|set| set.find(kid, algorithm)).unwrap_or_default()
    }

    /// Requests a fetch, if one is due and none completed since `completed`, and waits for the running one.
    async fn refetch(&self, completed: u64, failures: &FailureTracker<'_>) -> Result<(), KeyError> {
        self.request_fetch(completed, failures)?;
        let mut states = self.state.subscribe();
        let requested = states.borrow().requested;
        if let Ok(_permit) = self.waiting.try_acquire() {
            let fetched = states.wait_for(|state| state.completed >= requested);
            // If a reload removed the identity, no fetch completes.
            let _ = wait_without_place(timeout(MAX_WAIT, fetched)).await;
        }
        let state = self.state.borrow();
        if state.set.is_some() {
            return Ok(());
        }
        let failure = state.failure.clone();
        let failure = failure.unwrap_or_else(|| "the fetch takes too long".to_owned());
        Err(KeyError::Unavailable(failure))
    }

    fn request_fetch(&self, completed: u64, failures: &FailureTracker<'_>) -> Result<(), Denial> {
        let now = self.clock.elapsed();
        let mut checked = Ok(());
        self.state.send_if_modified(|state| {
            let is_due = state
                .requested_at
                .is_none_or(|at| now.saturating_sub(at) >= MIN_FETCH_INTERVAL);
            // A running fetch serves this token, too, and so does one that has just completed.
            let is_served = state.requested > state.completed || state.completed != completed;
            if !is_due || is_served {
                return false;
            }
            checked = failures.check_fetch();
            if checked.is_ok() {
                state.requested_at = Some(now);
                state.requested += 1;
            }
            checked.is_ok()
        });
        checked
    }

    /// Records that the latest set lacks a `kid`. From the second set on, the `kid` causes fetches more rarely.
    fn record_missing(&self, kid: Digest) {
        let (last_fetch, has_failed) = {
            let state = self.state.borrow();
            (state.completed, state.failure.is_some())
        };
        let before = self.missing.get(&kid);
        if has_failed || before.is_some_and(|before| before.last_fetch == last_fetch) {
            return;
        }
        let fetches = before.map_or(1, |before| before.fetches.saturating_add(1));
        let interval = match fetches {
            0 | 1 => Duration::ZERO,
            _ => (MIN_FETCH_INTERVAL * 2_u32.saturating_pow(fetches - 1)).min(MAX_KID_INTERVAL),
        };
        let missing = MissingKid {
            fetches,
            last_fetch,
            retry_at: self.clock.elapsed() + interval,
        };
        self.missing.insert(kid, missing);
    }

    /// Keeps the set up to date while it is polled.
    pub(crate) async fn refresh(&self) {
        let backoff = || {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(MIN_AGE)
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut retries: ExponentialBackoff = backoff();
        let mut jwks_url = None;
        loop {
            let requested = self.state.borrow().requested;
            let fetched = self.source.fetch(&mut jwks_url).await;
            let wait = match &fetched {
                Ok((_, age)) => {
                    retries = backoff();
                    // Early and with jitter, so that gates which started together do not fetch together.
                    age.mul_f64(0.8 + 0.2 * fastrand::f64())
                }
                Err(_) => retries.next().unwrap_or(MIN_AGE),
            };
            self.install(fetched.map(|(text, _)| text), requested);
            self.wait(wait).await;
        }
    }

    /// Replaces the set by a fetched one, and completes the requests up to `requested`.
    fn install(&self, fetched: Result<Bytes, String>, requested: u64) {
        let before = self.state.borrow().set.clone();
        let parsed = fetched.and_then(|text| {
            KeySet::parse(&text, &self.algorithms, KeyTypes::Public, before.as_deref())
                .map_err(|reason| format!("the response {reason}"))
        });
        let (name, outcome) = (self.identity.clone(), CallResult::of(&parsed));
        self.metrics.identity_calls(name, outcome).inc();
        let identity = self.identity.as_str();
        let had_failed = self.state.borrow().failure.is_some();
        let new_set = match parsed {
            Ok(set) => {
                if had_failed || before.is_none_or(|before| !before.has_same_keys(&set)) {
                    log_keys(identity, &set);
                }
                Ok(Arc::new(set))
            }
            Err(error) => {
                let current_keys = before.as_ref().map_or(0, |set| set.len());
                // Logged once per outage, because clients with unknown keys cause more fetches.
                if had_failed {
                    tracing::debug!(identity, error, current_keys, "cannot fetch keys yet");
                } else {
                    tracing::error!(identity, error, current_keys, "cannot fetch keys");
                }
                Err(error)
            }
        };
        let now = self.clock.elapsed();
        self.state.send_modify(|state| {
            if requested > state.completed && state.requested_at.is_some() {
                state.requested_at = Some(now);
            }
            state.completed = requested;
            state.failure = match new_set {
                Ok(set) => {
                    if let Some(before) = state.set.replace(set.clone()) {
                        before.retire_all_but(&set);
                    }
                    None
                }
                Err(error) => Some(error),
            };
        });
    }

    /// Waits for `time`, or until a token requests a fetch.
    async fn wait(&self, time: Duration) {
        let until = self.clock.elapsed() + time;
        let mut states = self.state.subscribe();
        loop {
            let left = until.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                return;
            }
            let requested = states.wait_for(|state| state.requested > state.completed);
            if timeout(left.min(MAX_SLEEP), requested).await.is_ok() {
                return;
            }
        }
    }
}

/// Logs what a fetched set has, and which keys the gate does not use, and why.
fn log_keys(identity: &str, set: &KeySet) {
    let skipped = set.skipped();
    for SkippedKey { kid, index, reason } in &skipped.reported {
        tracing::warn!(identity, kid, index, reason, "key skipped");
    }
    let (keys, skipped) = (set.len(), skipped.count);
    if set.is_empty() {
        tracing::error!(identity, keys, skipped, "no usable key");
    } else {
        tracing::info!(identity, keys, skipped, "keys fetched");
    }
}
