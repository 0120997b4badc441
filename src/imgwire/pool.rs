//! Tokens made ahead, so that requests do not wait for Imgwire.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use policies::Clock;

use super::token::UploadToken;
use crate::{
    config::imgwire::PoolSettings,
    telemetry::{Metrics, PoolEvent},
};

/// How long a token must still be valid when it is handed out: a client needs time to use it.
const LEAST_LIFE: SignedDuration = SignedDuration::from_secs(10);

/// Shared by all workers of a gate.
///
/// Each request creates up to two tokens, its own included, while the pool holds less than is used in half of its
/// `max_age`. So Imgwire never creates more than twice the tokens that are used, the pool refills without a burst after
/// an outage, and its tokens are young.
pub struct Pool {
    size: usize,
    max_age: Duration,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    tokens: VecDeque<(UploadToken, Duration)>,
    making: usize,
    is_closed: bool,
    /// How many were asked for from `since` on, and in the `max_age` before.
    asked: usize,
    asked_before: usize,
    since: Duration,
}

/// The right to make one token for the pool.
#[must_use = "it is to be made, or given up"]
pub(super) struct Making(pub(super) Arc<Pool>);

impl Pool {
    pub(super) fn new(
        settings: &PoolSettings,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let state = State {
            since: clock.elapsed(),
            ..State::default()
        };
        Arc::new(Self {
            size: settings.size.get(),
            max_age: settings.max_age.get(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            state: Mutex::new(state),
        })
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().tokens.len()
    }

    #[must_use]
    pub fn making(&self) -> usize {
        self.lock().making
    }

    /// Hands a token out, if there is one.
    pub(super) fn take(&self) -> Option<UploadToken> {
        let mut state = self.lock();
        self.note_request(&mut state);
        self.drop_old(&mut state);
        let (token, _) = state.tokens.pop_front()?;
        self.metrics.pool_events(PoolEvent::HandedOut).inc();
        Some(token)
    }

    /// Permits one new token, if the pool holds too few.
    pub(super) fn make(self: &Arc<Self>) -> Option<Making> {
        let mut state = self.lock();
        self.drop_old(&mut state);
        let used = state.asked.max(state.asked_before);
        let wanted = self.size.min(used.div_ceil(2));
        let is_wanted = !state.is_closed && state.tokens.len() + state.making < wanted;
        is_wanted.then(|| {
            state.making += 1;
            Making(self.clone())
        })
    }

    /// Keeps a token that no request needs.
    pub(super) fn keep(&self, token: UploadToken) {
        let mut state = self.lock();
        if state.is_closed || state.tokens.len() >= self.size {
            self.metrics.pool_events(PoolEvent::Discarded).inc();
        } else {
            state.tokens.push_back((token, self.clock.elapsed()));
            self.metrics.pool_events(PoolEvent::Made).inc();
        }
    }

    /// Makes no more tokens. Existing ones are still handed out.
    pub fn close(&self) {
        self.lock().is_closed = true;
    }

    fn note_request(&self, state: &mut State) {
        let now = self.clock.elapsed();
        let age = now.saturating_sub(state.since);
        if age >= self.max_age {
            let before = if age < 2 * self.max_age {
                state.asked
            } else {
                0
            };
            (state.asked_before, state.asked, state.since) = (before, 0, now);
        }
        state.asked = state.asked.saturating_add(1);
    }

    /// Drops tokens that are too old to hand out.
    fn drop_old(&self, state: &mut State) {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        while let Some((token, made)) = state.tokens.front() {
            let lives = token
                .expires_at
                .is_none_or(|expires_at| expires_at.duration_since(now) >= LEAST_LIFE);
            if lives && elapsed.saturating_sub(*made) < self.max_age {
                break;
            }
            state.tokens.pop_front();
            self.metrics.pool_events(PoolEvent::Discarded).inc();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.lock().making -= 1;
    }
}
