//! Metrics in the Prometheus text format. To add a metric, declare it here: a help text, a name, a type, labels and,
//! for a histogram, the buckets.

mod declare;
mod http_client;
mod optional;

use std::{fmt, ops::Deref, sync::Arc};

use actix_web::http::StatusCode;
use policies::{Clock, IdentityName, PolicyName, RoutePath, StoreName};
use prometheus_client::{
    encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub(crate) use self::http_client::HttpClientMetrics;
use self::{
    declare::{LabelValue, by_labels, label_values, metrics, register},
    optional::OptionalGauge,
};
use super::point::{Point, PointState};

metrics! {
    /// The metrics of the gate.
    pub struct Metrics;

    // Names and buckets follow the semantic conventions of OpenTelemetry.
    "" {
        /// Duration of requests on the public listener, to the response. The route is the path of a [[routes]] entry with what follows it, as a template such as `/imgwire/{workspace}/api/v1/images/{id}`, or the path of the session, and empty for all other paths. The status is empty if the client disconnected before the response
        http_server_request_duration_seconds: Histogram {
            http_request_method: &'static str,
            http_route: Option<RoutePath>,
            http_response_status_code: Option<StatusCode>
        } = Histogram::new([
            0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        ]);
        /// Duration of attempts to call Imgwire, or the service of an identity or a policy, to the end of the response. error_type is empty, a status from 400 on, or why there was no response: unreachable, broken, timeout, too_large, or cancelled if a second attempt was faster
        http_client_request_duration_seconds: Histogram {
            http_request_method: &'static str,
            http_response_status_code: Option<StatusCode>,
            server_address: UrlPart,
            server_port: UrlPart,
            error_type: Option<ErrorType>
        } = Histogram::new([
            0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        ]);
        /// Duration of operations of PostgreSQL and Redis
        db_client_operation_duration_seconds: Histogram {
            db_system_name: &'static str,
            db_operation_name: Operation,
            error_type: Option<&'static str>,
            store: StoreName
        } = Histogram::new([
            1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ]);
    }

    "imgwire_gate_" {
        /// Decisions about requests for a token or an upload, and denials and faults that were tolerated, by route, outcome, deciding policy and code
        decisions: Counter {
            route: RoutePath, outcome: &'static str, policy: Option<PolicyName>, code: &'static str
        };
        /// Time to evaluate the policies of a request
        chain_seconds: Histogram = Histogram::new([1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]);

        /// Tokens and uploads requested from Imgwire, by result: created, pooled, or the kind of failure
        creations: Counter { result: &'static str };
        /// Attempts to create a token or an upload at Imgwire for a request, without those for the pool and those of the circuit breaker
        upstream_attempts: Counter;

        /// Requests in progress
        in_flight: Gauge;
        /// Requests rejected because max_in_flight was reached
        overloaded: Counter;

        /// Calls of policies to other services and databases, by result: ok or fault
        policy_calls: Counter { policy: PolicyName, result: CallResult };
        /// Calls of identities to other services, for keys or about tokens and sessions, by result: ok or fault
        identity_calls: Counter { identity: IdentityName, result: CallResult };
        /// Config reloads, by result: applied, or refused because the config was invalid
        config_reloads: Counter { result: &'static str };
        /// Changed settings that take effect after a restart
        config_waiting: Gauge;
        /// Published keys of an issuer that are in use; 0 before the first fetch
        identity_keys: Gauge { identity: IdentityName };
        /// 1 while the keys of an issuer cannot be refreshed and the last ones are used, otherwise 0
        identity_keys_stale: Gauge { identity: IdentityName };

        /// State of the circuit breaker of Imgwire: 0 closed, 1 half-open, 2 open
        breaker_state: Gauge;
        /// Times that the circuit breaker opened
        breaker_opened: Counter;
        /// Retries skipped because the retry budget was exhausted
        retries_refused: Counter;

        /// Failed responses of Imgwire, by the type of error: a type that Imgwire documents, validation, other, or none if the body has none
        imgwire_errors: Counter { error_type: &'static str };
        /// 1 while Imgwire refuses requests for this reason and no retry can help, otherwise 0
        imgwire_refusing: Gauge { reason: &'static str };

        /// Tokens in the pool
        pool_tokens: Gauge;
        /// Tokens that are being created for the pool
        pool_making: Gauge;
        /// Tokens of the pool, by event: made, handed_out or discarded
        pool_events: Counter { event: PoolEvent };

        /// 1 while a store works, 0 while it is down
        store_up: Gauge { store: StoreName };
        /// 1 while a store may evict keys, so that limits can be exceeded, otherwise 0
        store_may_evict: Gauge { store: StoreName };
        /// Keys that a store has evicted while the gate ran, of all programs that use the store
        store_evicted_keys: Counter { store: StoreName };

        /// Log lines lost, by reason: queue_full if standard error takes lines too slowly, write_failed if it cannot be written, limited if more than 20 malformed requests per second would be logged
        log_lines_lost: Counter { reason: &'static str };
        /// Spans lost, by reason: queue_full if the collector is too slow, refused if it answered with an error or rejected a part, unreachable if there was no response
        spans_lost: Counter { reason: &'static str };

        /// Events that wait for their delivery to the app, in the store that the gates share
        events_pending: Gauge;
        /// Age of the oldest event that waits; 0 if none waits
        events_oldest_seconds: Gauge;
        /// Attempts to deliver an event, by outcome: delivered or failed
        event_deliveries: Counter { outcome: DeliveryOutcome };
        /// Events dropped because they were not delivered within the configured time
        events_dropped: Counter;

        /// 1 if an audit uploaded to Imgwire without a token, until Imgwire refuses; 0 if it refused; absent while that is unknown
        bypass_possible: OptionalGauge;
        /// Points of the last audit, by state; absent while another gate audits
        audit_points: Gauge { state: PointState };
    }

    info {
        /// Version and commit of the gate; always 1
        imgwire_gate_build: [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("IMGWIRE_GATE_COMMIT")),
        ];
    }
}

label_values! {
    /// The result of a call to another service, a database or a store.
    enum CallResult { Ok = "ok", Fault = "fault", }
}

label_values! {
    /// An event of a token in the pool.
    enum PoolEvent { Made = "made", HandedOut = "handed_out", Discarded = "discarded", }
}

label_values! {
    /// How an attempt to deliver an event ended.
    enum DeliveryOutcome { Delivered = "delivered", Failed = "failed", }
}

label_values! {
    /// An operation on a remote store.
    enum Operation {
        Limit = "limit",
        Reserve = "reserve",
        GiveBack = "give_back",
        Look = "look",
        Time = "time",
        Session = "session",
        Lease = "lease",
        Record = "record",
    }
}

/// Part of the URL of a service. The URL comes from the config, or from the discovery document of an issuer that the
/// config names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UrlPart(Arc<str>);

impl LabelValue for UrlPart {
    fn text(&self) -> &str {
        &self.0
    }
}

/// `error.type` of OpenTelemetry: the status, or a name if there was no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorType {
    Status(StatusCode),
    NoResponse(&'static str),
}

impl LabelValue for ErrorType {
    fn text(&self) -> &str {
        match self {
            Self::Status(status) => status.as_str(),
            Self::NoResponse(name) => name,
        }
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
    /// Records the points of an audit, and whether it found that the gate can be bypassed.
    pub(crate) fn record_audit(&self, points: &[Point], is_bypassed: Option<bool>) {
        for state in PointState::ALL {
            let count = points.iter().filter(|point| point.state == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.audit_points(state).set(count);
        }
        self.bypass_possible().set(is_bypassed.map(i64::from));
    }

    /// Removes what this gate recorded of audits.
    pub(crate) fn forget_audit(&self) {
        self.bypass_possible().set(None);
        self.audit_points.clear();
    }

    /// Removes the gauges of stores and identities, some of which a reload may have removed.
    pub(crate) fn forget_parts(&self) {
        self.identity_keys.clear();
        self.identity_keys_stale.clear();
        self.store_up.clear();
        self.store_may_evict.clear();
    }

    /// All metrics in the text format.
    #[must_use]
    pub fn encode(&self) -> String {
        self.record_losses();
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}

/// Measures the operations of one remote store.
pub(crate) struct StoreMetrics {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    store: StoreName,
    /// `db.system.name` of OpenTelemetry.
    system: &'static str,
}

impl StoreMetrics {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        store: &StoreName,
        system: &'static str,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            clock: clock.clone(),
            metrics: metrics.clone(),
            store: store.clone(),
            system,
        }
    }

    /// Runs an operation, and records its result and duration.
    pub(crate) async fn measure<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = self.clock.elapsed();
        let result = work.await;
        let took = self.clock.elapsed().saturating_sub(started);
        let error_type = result.is_err().then_some("fault");
        let store = self.store.clone();
        self.metrics
            .db_client_operation_duration_seconds(self.system, operation, error_type, store)
            .observe(took.as_secs_f64());
        result
    }
}
