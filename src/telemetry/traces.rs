//! OpenTelemetry traces. If the config names a collector, the gate exports its spans there by OTLP over HTTP.
//!
//! The spans are those of `tracing` at level DEBUG. Without a collector they are recorded only if the log filter
//! enables that level.

use std::{sync::OnceLock, thread, time::Duration};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{TraceContextExt as _, TraceId, TracerProvider as _},
};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::{Level, Span, Subscriber, field::Empty};
use tracing_actix_web::RootSpanBuilder;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{
    export,
    request_line::{RequestId, known_method, truncated},
};

/// How long the last export may take when the gate stops.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The spans of these crates are exported.
const TARGETS: [&str; 2] = ["imgwire_gate", "policies"];

/// Exports the remaining spans when it is dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports to the collector at `otlp`, under the path `/v1/traces`. The environment variables of the SDK
    /// (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` and others) apply.
    pub(super) fn start(
        otlp: &str,
        client: impl HttpClient + 'static,
    ) -> Result<Self, ExporterBuildError> {
        const PATH: &str = "/v1/traces";
        let base = otlp.trim_end_matches('/').trim_end_matches(PATH);
        let processor = export::processor(format!("{base}{PATH}"), client)?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("imgwire-gate");
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource.build());
        Ok(Self(provider.build()))
    }

    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer: OpenTelemetryLayer<S, SdkTracer> =
            OpenTelemetryLayer::new(self.0.tracer("imgwire-gate"));
        layer
            .with_context_activation(false)
            .with_level(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| {
                let is_own = |target| metadata.target().starts_with(target);
                metadata.is_span() && TARGETS.into_iter().any(is_own)
            }))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Spans that are lost are counted, and reported next.
        let _ = self.0.shutdown_with_timeout(LAST_EXPORT_TIMEOUT);
    }
}

/// The span of a request.
pub struct RootSpan;

/// Whether spans are recorded, set when the log starts.
static ENABLED: OnceLock<bool> = OnceLock::new();

impl RootSpan {
    /// Finds out whether spans are recorded. `span_enabled!` leaves state in its thread that can drop the thread's next
    /// event, so it runs in a thread of its own.
    pub(super) fn init() {
        let asking = thread::Builder::new().spawn(|| tracing::span_enabled!(Level::DEBUG));
        let enabled = asking.is_ok_and(|asking| asking.join().unwrap_or(false));
        // A second start keeps the first one's log.
        let _ = ENABLED.set(enabled);
    }

    /// Whether spans are recorded. If not, the middleware is disabled, because a span costs more than all policies
    /// together.
    #[must_use]
    pub fn is_enabled() -> bool {
        ENABLED.get().copied().unwrap_or(false)
    }

    /// Sets the name and the route of the current span, once the route is known.
    pub fn record_route(method: &str, route: &str) {
        let span = Span::current();
        if !span.is_disabled() {
            span.record("otel.name", format!("{method} {route}"));
            span.record("http.route", route);
        }
    }
}

impl RootSpanBuilder for RootSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = RequestId::assign(request);
        let method = known_method(request.method());
        let span = tracing::debug_span!(
            "request",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = Empty,
            http.response.status_code = Empty,
            url.path = truncated(request.path()),
            imgwire_gate.request_id = id.as_str(),
            imgwire_gate.outcome = Empty,
            imgwire_gate.code = Empty,
        );
        if !span.is_disabled() {
            // This fails only if no traces are exported.
            let _ = span.set_parent(parent(request.headers()));
        }
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, ended: &Result<ServiceResponse<B>, Error>) {
        let status = match ended {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The parent span of a request, from its headers (W3C Trace Context).
fn parent(headers: &HeaderMap) -> Context {
    let state = trace_state(headers);
    let headers = Headers { headers, state };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}

/// The maximum size of `tracestate` in bytes. Vendors must propagate this much, and may drop longer values.
const MAX_STATE_BYTES: usize = 512;

/// The `tracestate` of a request (W3C Trace Context) in one line, which the gate passes on unchanged; `None` if it is missing, too long or not ASCII.
#[must_use]
pub fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines: Option<Vec<_>> = headers
        .get_all("tracestate")
        .map(|line| line.to_str().ok())
        .collect();
    let joined = lines?.join(",");
    let fits = (1..=MAX_STATE_BYTES).contains(&joined.len());
    fits.then(|| HeaderValue::try_from(joined).ok()).flatten()
}

/// Adapts the headers of a request to OpenTelemetry.
struct Headers<'a> {
    headers: &'a HeaderMap,
    state: Option<HeaderValue>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            "tracestate" => self.state.as_ref(),
            _ => self.headers.get(key),
        };
        value?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(HeaderName::as_str).collect()
    }
}

/// The id of the current trace, if it is exported.
pub fn trace_id() -> Option<TraceId> {
    let span = Span::current();
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span();
    let context = context.span_context();
    context.is_valid().then(|| context.trace_id())
}

/// `traceparent` and `tracestate` for a call within `span`; `None` if no trace is exported.
pub(crate) fn outgoing_headers(span: &Span) -> Option<(HeaderValue, Option<HeaderValue>)> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span();
    let context = context.span_context();
    let parent = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    );
    let parent = HeaderValue::try_from(parent).ok()?;
    let state = HeaderValue::try_from(context.trace_state().header()).ok();
    context
        .is_valid()
        .then(|| (parent, state.filter(|state| !state.is_empty())))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn of(lines: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).expect("the value is valid");
            headers.append(HeaderName::from_static("tracestate"), value);
        }
        let state = trace_state(&headers)?;
        Some(state.to_str().expect("the state is ASCII").to_owned())
    }

    #[test]
    fn a_state_of_at_most_512_bytes_is_passed_on_in_one_line() {
        let long = |length: usize| "v".repeat(length).into_bytes();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[b"a=1"]).as_deref(), Some("a=1"));
        assert_eq!(of(&[b"a=1", b"b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(of(&[&long(512)]).map(|state| state.len()), Some(512));
        assert_eq!(of(&[&long(513)]), None);
        assert_eq!(
            of(&[&long(300), &long(211)]).map(|state| state.len()),
            Some(512)
        );
        assert_eq!(of(&[&long(300), &long(212)]), None);
        assert_eq!(of(&["a=\u{e9}".as_bytes()]), None);
    }
}
