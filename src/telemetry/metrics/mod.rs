//! Metrics in Prometheus' text format. One declaration is all that a metric takes: the first line is its help text, the
//! rest its name, its type, its labels and, for a histogram, its buckets.

mod declare;
mod stores;

use std::{fmt, ops::Deref};

use actix_web::http::StatusCode;
use policies::{IdentityName, PolicyName, RoutePath, StoreName};
use prometheus_client::{
    encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use self::declare::{LabelValue, LabelValues, by_labels, label_values, metrics, register};
pub(crate) use self::stores::StoreMetrics;

metrics! {
    /// Counts what the gate does.
    pub struct Metrics;

    // The semantic conventions of OpenTelemetry.
    "" {
        /// Duration of requests on the public listener
        http_server_request_duration_seconds: Histogram {
            http_request_method: &'static str,
            http_route: Option<RoutePath>,
            http_response_status_code: StatusCode
        } = Histogram::new([
            0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        ]);
    }

    "imgwire_gate_" {
        /// Decisions by route, outcome, deciding policy and code
        decisions: Counter {
            route: RoutePath, outcome: &'static str, policy: Option<PolicyName>, code: &'static str
        };
        /// Time that the chain of policies took
        chain_seconds: Histogram = Histogram::new([1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]);

        /// Tokens asked of Imgwire, by result
        creations: Counter { result: &'static str };
        /// Attempts to create a token
        upstream_attempts: Counter;
        /// Time that Imgwire took, all attempts together
        upstream_seconds: Histogram = Histogram::new([
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ]);

        /// Requests that run now
        in_flight: Gauge;
        /// Requests that were refused at once, for too many ran
        overloaded: Counter;

        /// Calls of policies to other services and databases
        policy_calls: Counter { policy: PolicyName, result: CallResult };
        /// Calls of identities to other services: for keys, about tokens and sessions
        identity_calls: Counter { identity: IdentityName, result: CallResult };
        /// Times that the config was to be loaded again: `applied`, or `refused` and nothing changed
        config_reloads: Counter { result: &'static str };
        /// Published keys that tokens are verified with; none before the first fetch
        identity_keys: Gauge { identity: IdentityName };
        /// 1 while published keys cannot be fetched, and the last ones serve
        identity_keys_stale: Gauge { identity: IdentityName };

        /// Whether requests go through to Imgwire: 0 closed, 1 half-open, 2 open
        breaker_state: Gauge;
        /// Times that Imgwire was found to be down
        breaker_opened: Counter;
        /// Retries that were not made, for they would have more than doubled the load
        retries_refused: Counter;

        /// Tokens that were made ahead and wait
        pool_tokens: Gauge;
        /// Tokens that are being made ahead
        pool_making: Gauge;
        /// What became of tokens made ahead: made, handed_out, discarded
        pool_events: Counter { event: PoolEvent };

        /// 1 while a store is known to work, 0 while it is down and probed
        store_up: Gauge { store: StoreName };
        /// Operations of stores on other machines, by result
        store_operations: Counter { store: StoreName, operation: Operation, result: CallResult };
        /// Time that an operation of a store on another machine took
        store_operation_seconds: Histogram { store: StoreName } = Histogram::new([
            1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ]);
    }

    info {
        /// The running program
        imgwire_gate_build: [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("IMGWIRE_GATE_COMMIT")),
        ];
    }
}

label_values! {
    /// How a call to another service, a database or a store ended.
    enum CallResult { Ok = "ok", Fault = "fault", }
}

label_values! {
    /// What happens to a token that is made ahead.
    enum PoolEvent { Made = "made", HandedOut = "handed_out", Discarded = "discarded", }
}

label_values! {
    /// What a store on another machine does.
    enum Operation {
        Limit = "limit",
        Reserve = "reserve",
        GiveBack = "give_back",
        Look = "look",
        Time = "time",
        Session = "session",
    }
}

impl CallResult {
    pub(crate) fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(_) => Self::Fault,
        }
    }
}

impl Metrics {
    /// All metrics as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}
