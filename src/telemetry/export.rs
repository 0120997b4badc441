//! The export of spans: counts those that do not fit into the queue, and those that the collector does not take.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self, BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor},
};
use parking_lot::Mutex;
use policies::excerpt;
use prost::Message as _;

use super::losses::SPANS;

/// How long an export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The variable for the maximum number of queued spans, and its default.
const MAX_QUEUE_SIZE: (&str, usize) = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048);

/// Exports spans in batches, on a thread of its own, to the collector at `endpoint`.
pub(super) fn processor(
    endpoint: String,
    client: impl HttpClient + 'static,
) -> Result<CountingProcessor, ExporterBuildError> {
    let last = Arc::<Mutex<LastResponse>>::default();
    let client = ObservedClient {
        client,
        last: last.clone(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let (variable, default) = MAX_QUEUE_SIZE;
    let capacity = env::var(variable).ok().and_then(|size| size.parse().ok());
    let capacity = capacity.unwrap_or(default);
    let queued = Arc::<AtomicUsize>::default();
    let exporter = CountingExporter {
        exporter,
        last,
        queued: queued.clone(),
    };
    let config = BatchConfigBuilder::default().with_max_queue_size(capacity);
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config.build());
    Ok(CountingProcessor {
        batches: batches.build(),
        queued,
        capacity,
    })
}

/// Counts the spans that do not fit into the queue of the SDK, which does not tell how many it drops.
#[derive(Debug)]
pub(super) struct CountingProcessor {
    batches: BatchSpanProcessor,
    /// The number of spans that are not yet exported.
    queued: Arc<AtomicUsize>,
    capacity: usize,
}

impl SpanProcessor for CountingProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::Relaxed) < self.capacity {
            self.batches.on_end(span);
        } else {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            SPANS.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts the spans of failed exports.
#[derive(Debug)]
struct CountingExporter {
    exporter: SpanExporter,
    last: Arc<Mutex<LastResponse>>,
    queued: Arc<AtomicUsize>,
}

impl trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.queued.fetch_sub(count, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        let last = std::mem::take(&mut *self.last.lock());
        let lost = match (&exported, last.rejected) {
            (Ok(()), rejected) => rejected,
            (Err(_), _) => count as u64,
        };
        if lost > 0 {
            let counter = if last.has_response {
                &SPANS.refused
            } else {
                &SPANS.failed
            };
            counter.fetch_add(lost, Ordering::Relaxed);
            SPANS.set_reason(last.reason);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// What the collector said about the last batch. There is only one export at a time.
#[derive(Debug)]
struct LastResponse {
    has_response: bool,
    /// The number of spans that an otherwise successful export rejected.
    rejected: u64,
    reason: String,
}

impl Default for LastResponse {
    fn default() -> Self {
        Self {
            has_response: false,
            rejected: 0,
            reason: "the collector did not answer in time".to_owned(),
        }
    }
}

impl LastResponse {
    fn of(response: &Result<http::Response<Bytes>, HttpError>) -> Self {
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                return Self {
                    reason: format!("the collector: {error}"),
                    ..Self::default()
                };
            }
        };
        let status = response.status();
        let mut last = Self {
            has_response: true,
            rejected: 0,
            reason: format!("the collector answered with status {}", status.as_u16()),
        };
        let body = ExportTraceServiceResponse::decode(response.body().clone());
        let partial = body.ok().and_then(|body| body.partial_success);
        if let Some(partial) = partial.filter(|_| status.is_success()) {
            last.rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            let reason = excerpt(&partial.error_message);
            last.reason = format!("the collector rejected a part: \"{reason}\"");
        }
        last
    }
}

/// Notes what the collector says.
#[derive(Debug)]
struct ObservedClient<C> {
    client: C,
    last: Arc<Mutex<LastResponse>>,
}

#[async_trait::async_trait]
impl<C: HttpClient> HttpClient for ObservedClient<C> {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let response = self.client.send_bytes(request).await;
        *self.last.lock() = LastResponse::of(&response);
        response
    }
}
