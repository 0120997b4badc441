//! Traces (OpenTelemetry): a request, the policies of its chain, and the call to Imgwire, as spans that a collector
//! gets by OTLP over HTTP. They are put together when a request is over, and sent by a thread of their own.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::http::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{
        Span as _, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_http::{HttpClient as ExportClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, Span},
};
use policies::{RoutePath, Step, StepResult};
use tokio::sync::{mpsc, oneshot};

use super::trace_state::trace_state;
use crate::{
    gate::issue::Report,
    http::error::ApiError,
    imgwire::{Caller, Creation},
    outbound::{HttpClient, Outbound, Outgoing, Repeat},
};

/// How long an export may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long spans may take to be sent when the gate ends.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// The longest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends spans to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    outbound: Outbound,
}

/// The spans of a request that runs.
pub struct RequestTrace {
    tracer: SdkTracer,
    /// What an elapsed time is counted from, as the time of day.
    zero: SystemTime,
    outbound: Outbound,
    server: Span,
    /// What the request's own spans are children of.
    context: Context,
    upstream: Option<Span>,
}

impl Traces {
    /// Begins to send spans to the collector at `otlp`, which takes them at `/v1/traces`. The SDK's own environment
    /// variables (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` and others) hold.
    ///
    /// # Errors
    ///
    /// What the exporter says.
    pub fn start(otlp: &str, outbound: &Outbound) -> Result<Self, String> {
        const PATH: &str = "/v1/traces";
        let base = otlp.trim_end_matches('/');
        let endpoint = format!("{}{PATH}", base.trim_end_matches(PATH));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Courier::start(outbound.http.clone()))
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("imgwire-gate");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self {
            tracer: provider.tracer("imgwire-gate"),
            provider,
            propagator: TraceContextPropagator::new(),
            outbound: outbound.clone(),
        })
    }

    /// Begins the span of a request, in the trace that it belongs to by its headers (W3C Trace Context).
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, route: &RoutePath) -> RequestTrace {
        let clock = &self.outbound.clock;
        let micros = u64::try_from(clock.now().as_microsecond()).unwrap_or_default();
        let now = UNIX_EPOCH + Duration::from_micros(micros);
        let state = trace_state(headers);
        let parent = self
            .propagator
            .extract_with_context(&Context::new(), &Headers { headers, state });
        let builder = self
            .tracer
            .span_builder(format!("POST {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(now)
            .with_attributes([
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("http.route", route.to_string()),
                KeyValue::new("url.path", route.to_string()),
            ]);
        let server = self.tracer.build_with_context(builder, &parent);
        let context = Context::new().with_remote_span_context(server.span_context().clone());
        RequestTrace {
            tracer: self.tracer.clone(),
            zero: now - clock.elapsed(),
            outbound: self.outbound.clone(),
            server,
            context,
            upstream: None,
        }
    }

    /// Sends what is left.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl RequestTrace {
    /// The trace's id, for the log.
    #[must_use]
    pub fn id(&self) -> TraceId {
        self.server.span_context().trace_id()
    }

    /// Notes what each policy said.
    pub fn note_policies(&self, steps: Vec<Step>) {
        for step in steps {
            let builder = self
                .tracer
                .span_builder(format!("policy {}", step.policy))
                .with_kind(SpanKind::Internal)
                .with_start_time(self.zero + step.began);
            let mut span = self.tracer.build_with_context(builder, &self.context);
            let (verdict, reason) = match step.result {
                StepResult::Allow => ("allow", None),
                StepResult::Skip => ("skip", None),
                StepResult::Deny(reason) => ("deny", Some(reason)),
                StepResult::Fault(reason) => {
                    span.set_status(Status::error(reason.clone()));
                    ("fault", Some(reason))
                }
            };
            span.set_attributes([
                KeyValue::new("imgwire_gate.policy", step.policy.to_string()),
                KeyValue::new("imgwire_gate.kind", step.kind),
                KeyValue::new("imgwire_gate.verdict", verdict),
                KeyValue::new("imgwire_gate.overlooked", step.tolerated),
            ]);
            span.set_attributes(reason.map(|reason| KeyValue::new("imgwire_gate.reason", reason)));
            span.end_with_timestamp(self.zero + step.began + step.took);
        }
    }

    /// Begins the span of the call to Imgwire, which is told of it.
    pub fn begin_upstream(&mut self, caller: &mut Caller) {
        let builder = self
            .tracer
            .span_builder("create upload token")
            .with_kind(SpanKind::Client)
            .with_start_time(self.now());
        let span = self.tracer.build_with_context(builder, &self.context);
        let context = span.span_context();
        let parent = format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        );
        caller.parent = HeaderValue::from_str(&parent).ok();
        let state = context.trace_state().header();
        caller.state = (!state.is_empty())
            .then(|| HeaderValue::from_str(&state).ok())
            .flatten();
        self.upstream = Some(span);
    }

    /// Ends it.
    pub fn end_upstream(&mut self, creation: &Creation) {
        let now = self.now();
        let Some(mut span) = self.upstream.take() else {
            return;
        };
        let attempts = i64::from(creation.attempts);
        span.set_attribute(KeyValue::new("imgwire_gate.attempts", attempts));
        span.set_attribute(KeyValue::new("imgwire_gate.pooled", attempts == 0));
        if let Err(error) = &creation.result {
            span.set_attribute(KeyValue::new("error.type", error.name()));
            span.set_status(Status::error(error.to_string()));
        }
        span.end_with_timestamp(now);
    }

    /// Ends the span of the request.
    pub fn end(mut self, caller: &Caller, report: &Report) {
        let outcome = report.ending.outcome();
        let (status, code) = ApiError::describe_result(&report.ending.result());
        let id = caller.request_id.as_str().to_owned();
        self.server.set_attributes([
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("imgwire_gate.request_id", id),
            KeyValue::new("imgwire_gate.outcome", outcome),
        ]);
        let code = code.map(|code| KeyValue::new("imgwire_gate.code", code));
        self.server.set_attributes(code);
        if status >= 500 {
            self.server.set_status(Status::error(outcome));
        }
        let now = self.now();
        self.server.end_with_timestamp(now);
    }

    fn now(&self) -> SystemTime {
        self.zero + self.outbound.clock.elapsed()
    }
}

/// A request's headers, as OpenTelemetry reads them.
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

type Parcel = (
    http::Request<Bytes>,
    oneshot::Sender<Result<http::Response<Bytes>, String>>,
);

/// Carries what the exporter sends: by the gate's own HTTP client, whose connections stay on one thread.
#[derive(Debug)]
struct Courier(mpsc::UnboundedSender<Parcel>);

impl Courier {
    fn start(client: HttpClient) -> Self {
        let (sender, mut parcels) = mpsc::unbounded_channel::<Parcel>();
        let carry = move || {
            actix_web::rt::System::new().block_on(async move {
                while let Some((request, reply)) = parcels.recv().await {
                    // Whoever asked may have given up.
                    let _ = reply.send(carry(&client, request).await);
                }
            });
        };
        // Without a thread nothing is sent, and the exporter says so.
        let _ = thread::Builder::new().name("otlp".to_owned()).spawn(carry);
        Self(sender)
    }
}

async fn carry(
    client: &HttpClient,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, String> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let outgoing = Outgoing {
        method: Method::POST,
        url: &head.uri.to_string(),
        headers: headers.collect(),
        body,
        timeout: TIMEOUT,
        limit: MAX_ANSWER,
        repeat: Repeat::Harmful,
    };
    let answer = client
        .send(outgoing)
        .await
        .map_err(|error| error.to_string())?;
    http::Response::builder()
        .status(answer.status.as_u16())
        .body(answer.body)
        .map_err(|error| error.to_string())
}

#[async_trait::async_trait]
impl ExportClient for Courier {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let (reply, answer) = oneshot::channel();
        self.0.send((request, reply))?;
        answer.await?.map_err(HttpError::from)
    }
}
