//! Tokens that are created in advance, so that requests do not wait for Imgwire.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::SignedDuration;
use parking_lot::Mutex;
use policies::Clock;

use super::token::UploadToken;
use crate::{
    config::imgwire::PoolSettings,
    telemetry::{Metrics, PoolEvent},
};

/// The remaining lifetime that a client needs to use a token.
const MIN_LIFETIME: SignedDuration = SignedDuration::from_secs(10);

/// Shared by all workers of a gate.
///
/// While the pool holds fewer tokens than are used in half of its `max_age`, each request creates up to two tokens, its
/// own included. So Imgwire creates at most twice as many tokens as are used, the pool refills without a burst after an
/// outage, and its tokens are young.
pub struct Pool {
    size: usize,
    max_age: Duration,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the time of their creation, oldest first.
    tokens: VecDeque<(UploadToken, Duration)>,
    making: usize,
    is_closed: bool,
    /// Of the API key that creates the tokens.
    generation: u64,
    /// The requests since `window_start`, and in the `max_age` before it.
    requests: usize,
    requests_before: usize,
    window_start: Duration,
}

/// Permission to create one token for the pool, until it is dropped.
#[must_use]
pub(super) struct CreatePermit(pub(super) Arc<Pool>);

impl Pool {
    pub(super) fn new(
        settings: &PoolSettings,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let state = State {
            window_start: clock.elapsed(),
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
    pub fn tokens(&self) -> usize {
        self.state.lock().tokens.len()
    }

    #[must_use]
    pub fn making(&self) -> usize {
        self.state.lock().making
    }

    /// Hands out a token, if there is one.
    pub(super) fn take(&self) -> Option<UploadToken> {
        let mut state = self.state.lock();
        self.record_request(&mut state);
        self.drop_expired(&mut state);
        let (token, _) = state.tokens.pop_front()?;
        self.metrics.pool_events(PoolEvent::HandedOut).inc();
        Some(token)
    }

    /// Permits the creation of one token, if the pool holds too few.
    pub(super) fn permit(self: &Arc<Self>) -> Option<CreatePermit> {
        let mut state = self.state.lock();
        self.drop_expired(&mut state);
        let requests = state.requests.max(state.requests_before);
        let wanted = self.size.min(requests.div_ceil(2));
        let is_wanted = !state.is_closed && state.tokens.len() + state.making < wanted;
        is_wanted.then(|| {
            state.making += 1;
            CreatePermit(self.clone())
        })
    }

    /// Adds a token that no request needs, created with the API key of this generation.
    pub(super) fn add(&self, token: UploadToken, generation: u64) {
        let mut state = self.state.lock();
        let is_unwanted = state.is_closed || generation != state.generation;
        if is_unwanted || state.tokens.len() >= self.size {
            self.metrics.pool_events(PoolEvent::Discarded).inc();
        } else {
            state.tokens.push_back((token, self.clock.elapsed()));
            self.metrics.pool_events(PoolEvent::Made).inc();
        }
    }

    /// Drops the tokens of earlier API keys.
    pub(super) fn empty(&self, generation: u64) {
        let mut state = self.state.lock();
        state.generation = generation;
        for _ in state.tokens.drain(..) {
            self.metrics.pool_events(PoolEvent::Discarded).inc();
        }
    }

    /// Creates no more tokens. Existing ones are still handed out.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
    }

    fn record_request(&self, state: &mut State) {
        let now = self.clock.elapsed();
        let age = now.saturating_sub(state.window_start);
        if age >= self.max_age {
            let before = if age < 2 * self.max_age {
                state.requests
            } else {
                0
            };
            (state.requests_before, state.requests, state.window_start) = (before, 0, now);
        }
        state.requests = state.requests.saturating_add(1);
    }

    /// Drops tokens that are too old to hand out.
    fn drop_expired(&self, state: &mut State) {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        while let Some((token, created_at)) = state.tokens.front() {
            let is_valid = token
                .expires_at
                .is_none_or(|expires_at| expires_at.duration_since(now) >= MIN_LIFETIME);
            if is_valid && elapsed.saturating_sub(*created_at) < self.max_age {
                break;
            }
            state.tokens.pop_front();
            self.metrics.pool_events(PoolEvent::Discarded).inc();
        }
    }
}

impl Drop for CreatePermit {
    fn drop(&mut self) {
        self.0.state.lock().making -= 1;
    }
}
