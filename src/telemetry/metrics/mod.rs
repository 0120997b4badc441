//! Metrics in Prometheus' text format. Every label takes its values from the config or from the code, never
//! from a client.

mod labels;
mod stores;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use policies::{Clock, IdentityName, PolicyName, RoutePath, StoreName};
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

pub use self::{
    labels::PoolEvent,
    stores::{Operation, StoreMetrics},
};
use self::{
    labels::{
        CreationLabels, DecisionLabels, IdentityCallLabels, IdentityLabels, PolicyCallLabels,
        PoolLabels, ReloadLabels, StoreLabels, StoreResultLabels,
    },
    stores::store_seconds,
};
use crate::imgwire::{BreakerState, Upstream};

/// Counts what the gate does.
pub struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    chain: Histogram,
    creations: Family<CreationLabels, Counter>,
    attempts: Counter,
    upstream: Histogram,
    in_flight: Gauge,
    overloaded: Counter,
    policy_calls: Family<PolicyCallLabels, Counter>,
    identity_calls: Family<IdentityCallLabels, Counter>,
    config_reloads: Family<ReloadLabels, Counter>,
    identity_keys: Family<IdentityLabels, Gauge>,
    identity_keys_stale: Family<IdentityLabels, Gauge>,
    breaker_state: Gauge,
    breaker_opened: Counter,
    retries_refused: Counter,
    pool_tokens: Gauge,
    pool_making: Gauge,
    pool_events: Family<PoolLabels, Counter>,
    store_up: Family<StoreLabels, Gauge>,
    store_operations: Family<StoreResultLabels, Counter>,
    store_seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("imgwire_gate");
        let decisions = Family::default();
        let chain = Histogram::new([1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]);
        let creations = Family::default();
        let attempts = Counter::<u64, AtomicU64>::default();
        let upstream = Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ]);
        let in_flight = Gauge::default();
        let overloaded = Counter::default();
        let policy_calls = Family::default();
        let identity_calls = Family::default();
        let config_reloads = Family::default();
        let identity_keys = Family::default();
        let identity_keys_stale = Family::default();
        let breaker_state = Gauge::default();
        let breaker_opened = Counter::default();
        let retries_refused = Counter::default();
        let pool_tokens = Gauge::default();
        let pool_making = Gauge::default();
        let pool_events = Family::default();
        let store_up = Family::default();
        let store_operations = Family::default();
        let store_seconds = Family::new_with_constructor(store_seconds as fn() -> Histogram);
        registry.register(
            "decisions",
            "Decisions by route, outcome, deciding policy and code",
            decisions.clone(),
        );
        registry.register_with_unit(
            "chain",
            "Time that the chain of policies took",
            Unit::Seconds,
            chain.clone(),
        );
        registry.register(
            "creations",
            "Tokens asked of Imgwire, by result",
            creations.clone(),
        );
        registry.register(
            "upstream_attempts",
            "Attempts to create a token",
            attempts.clone(),
        );
        registry.register_with_unit(
            "upstream",
            "Time that Imgwire took, all attempts together",
            Unit::Seconds,
            upstream.clone(),
        );
        registry.register("in_flight", "Requests that run now", in_flight.clone());
        registry.register(
            "overloaded",
            "Requests that were refused at once, for too many ran",
            overloaded.clone(),
        );
        registry.register(
            "policy_calls",
            "Calls of policies to other services and databases",
            policy_calls.clone(),
        );
        registry.register(
            "identity_calls",
            "Calls of identities to other services: for keys, about tokens and sessions",
            identity_calls.clone(),
        );
        registry.register(
            "config_reloads",
            "Times that the config was to be loaded again: `applied`, or `refused` and nothing changed",
            config_reloads.clone(),
        );
        registry.register(
            "identity_keys",
            "Published keys that tokens are verified with; none before the first fetch",
            identity_keys.clone(),
        );
        registry.register(
            "identity_keys_stale",
            "1 while published keys cannot be fetched, and the last ones serve",
            identity_keys_stale.clone(),
        );
        registry.register(
            "breaker_state",
            "Whether requests go through to Imgwire: 0 closed, 1 half-open, 2 open",
            breaker_state.clone(),
        );
        registry.register(
            "breaker_opened",
            "Times that Imgwire was found to be down",
            breaker_opened.clone(),
        );
        registry.register(
            "retries_refused",
            "Retries that were not made, for they would have more than doubled the load",
            retries_refused.clone(),
        );
        registry.register(
            "pool_tokens",
            "Tokens that were made ahead and wait",
            pool_tokens.clone(),
        );
        registry.register(
            "pool_making",
            "Tokens that are being made ahead",
            pool_making.clone(),
        );
        registry.register(
            "pool_events",
            "What became of tokens made ahead: made, handed_out, discarded",
            pool_events.clone(),
        );
        registry.register(
            "store_up",
            "1 while a store is known to work, 0 while it is down and probed",
            store_up.clone(),
        );
        registry.register(
            "store_operations",
            "Operations of stores on other machines, by result",
            store_operations.clone(),
        );
        registry.register_with_unit(
            "store_operation",
            "Time that an operation of a store on another machine took",
            Unit::Seconds,
            store_seconds.clone(),
        );
        registry.register(
            "build",
            "The running program",
            Info::new([
                ("version", env!("CARGO_PKG_VERSION")),
                ("commit", env!("IMGWIRE_GATE_COMMIT")),
            ]),
        );
        Self {
            registry,
            decisions,
            chain,
            creations,
            attempts,
            upstream,
            in_flight,
            overloaded,
            policy_calls,
            identity_calls,
            config_reloads,
            identity_keys,
            identity_keys_stale,
            breaker_state,
            breaker_opened,
            retries_refused,
            pool_tokens,
            pool_making,
            pool_events,
            store_up,
            store_operations,
            store_seconds,
        }
    }
}

impl Metrics {
    /// Counts a decision.
    pub fn decided(
        &self,
        route: &RoutePath,
        outcome: &'static str,
        policy: Option<&PolicyName>,
        code: &'static str,
    ) {
        let labels = DecisionLabels {
            route: route.clone(),
            outcome,
            policy: policy.cloned(),
            code,
        };
        self.decisions.get_or_create(&labels).inc();
    }

    /// Notes how long a chain took.
    pub fn chain_took(&self, took: Duration) {
        self.chain.observe(took.as_secs_f64());
    }

    /// Counts a creation and its attempts.
    pub fn created(&self, result: &'static str, attempts: u32, took: Duration) {
        self.creations
            .get_or_create(&CreationLabels { result })
            .inc();
        self.attempts.inc_by(attempts.into());
        // Nobody waited for what was made ahead, or for one that is known to be down.
        if attempts > 0 {
            self.upstream.observe(took.as_secs_f64());
        }
    }

    /// Counts a call of an identity to another service.
    pub fn identity_called(&self, identity: &IdentityName, is_ok: bool) {
        let labels = IdentityCallLabels {
            identity: identity.clone(),
            result: if is_ok { "ok" } else { "fault" },
        };
        self.identity_calls.get_or_create(&labels).inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, is_applied: bool) {
        let result = if is_applied { "applied" } else { "refused" };
        self.config_reloads
            .get_or_create(&ReloadLabels { result })
            .inc();
    }

    /// Counts a call of a policy to another service, or to a database.
    pub fn policy_called(&self, policy: &PolicyName, is_ok: bool) {
        let labels = PolicyCallLabels {
            policy: policy.clone(),
            result: if is_ok { "ok" } else { "fault" },
        };
        self.policy_calls.get_or_create(&labels).inc();
    }

    /// Notes how an identity's published keys stand.
    pub fn identity_keys(&self, identity: &IdentityName, keys: usize, is_stale: bool) {
        let labels = IdentityLabels {
            identity: identity.clone(),
        };
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        self.identity_keys.get_or_create(&labels).set(keys);
        let stale = self.identity_keys_stale.get_or_create(&labels);
        stale.set(i64::from(is_stale));
    }

    /// What counts the operations of a store.
    #[must_use]
    pub fn store(&self, store: &StoreName, clock: &Arc<dyn Clock>) -> StoreMetrics {
        let counter = |operation: Operation, result| {
            let labels = StoreResultLabels {
                store: store.clone(),
                operation: operation.name(),
                result,
            };
            self.store_operations.get_or_create(&labels).clone()
        };
        let store = store.clone();
        StoreMetrics {
            clock: clock.clone(),
            operations: Operation::ALL
                .map(|operation| (counter(operation, "ok"), counter(operation, "fault"))),
            seconds: self
                .store_seconds
                .get_or_create(&StoreLabels {
                    store: store.clone(),
                })
                .clone(),
        }
    }

    /// Counts a request that was refused, for too many ran.
    pub fn overloaded(&self) {
        self.overloaded.inc();
    }

    /// Counts what becomes of a token that is made ahead.
    pub fn pool(&self, event: PoolEvent) {
        self.pool_events.get_or_create(&PoolLabels { event }).inc();
    }

    /// Counts that Imgwire was found to be down.
    pub fn breaker_opened(&self) {
        self.breaker_opened.inc();
    }

    /// Counts a retry that was not made.
    pub fn retry_refused(&self) {
        self.retries_refused.inc();
    }

    /// Notes how breaker and pool stand.
    pub fn upstream(&self, upstream: &Upstream) {
        self.breaker_state.set(match upstream.breaker.state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        });
        let pool = upstream.pool.as_ref();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.pool_tokens
            .set(pool.map_or(0, |pool| count(pool.len())));
        self.pool_making
            .set(pool.map_or(0, |pool| count(pool.making())));
    }

    /// Notes whether a store works.
    pub fn store_up(&self, store: &StoreName, is_up: bool) {
        let labels = StoreLabels {
            store: store.clone(),
        };
        self.store_up.get_or_create(&labels).set(i64::from(is_up));
    }

    /// All of them as text; `in_flight` is how many requests run now.
    #[must_use]
    pub fn encode(&self, in_flight: u32) -> String {
        self.in_flight.set(in_flight.into());
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}
