//! Traces that the gate exports by OpenTelemetry.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message as _;
use serde_json::{Value, json};

use tempfile::TempDir;

use crate::{
    helpers::{Emulator, Gate, ROUTE, Request, Token},
    process::{GateProcess, write_config},
    uploads,
};

/// An OpenTelemetry collector that keeps the spans.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = spans.clone();
        let server = HttpServer::new(move || {
            let kept = kept.clone();
            let take = web::post().to(move |body: web::Bytes| {
                let export = ExportTraceServiceRequest::decode(body).unwrap();
                let scopes = export
                    .resource_spans
                    .into_iter()
                    .flat_map(|r| r.scope_spans);
                kept.lock()
                    .unwrap()
                    .extend(scopes.flat_map(|scope| scope.spans));
                std::future::ready(HttpResponse::Ok())
            });
            App::new().route("/v1/traces", take)
        });
        let server = server.workers(1).bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.disable_signals().run());
        Self { url, spans }
    }

    fn span(&self, name: &str) -> Option<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().find(|span| span.name == name).cloned()
    }
}

/// A gate in a process of its own, because a process has one exporter.
pub(crate) struct TracedGate {
    process: GateProcess,
    imgwire: Emulator,
    _folder: TempDir,
}

impl TracedGate {
    pub(crate) async fn start(collector: &str) -> Self {
        let imgwire = Emulator::start().unwrap();
        let gate = Gate::standard().set("telemetry.otlp", collector);
        let (folder, config) = write_config(&gate, imgwire.url());
        Self {
            process: GateProcess::start(&config, &[], "info").await,
            imgwire,
            _folder: folder,
        }
    }

    pub(crate) fn ask(&self) -> Request {
        let url = format!("{}{ROUTE}", self.process.url());
        Request(awc::Client::default().post(url))
    }

    /// Ends the gate, which exports the remaining spans.
    pub(crate) async fn end(mut self) -> Vec<Value> {
        self.process.signal("-TERM");
        assert!(self.process.end().await.success());
        self.process.lines()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    let value = found.and_then(|found| found.value.clone()?.value);
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(is_so)) => is_so.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

#[actix_web::test]
async fn a_request_its_policies_and_the_call_to_imgwire_are_spans_of_one_trace() {
    let collector = Collector::start();
    let gate = TracedGate::start(&collector.url).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let answer = gate
        .ask()
        .header("traceparent", &parent)
        .header("tracestate", "vendor=1")
        .header("x-request-id", "request-1")
        .bearer(&Token::of("user_1").sign())
        .send()
        .await;
    answer.assert_token();
    let sent: std::collections::HashMap<_, _> = gate.imgwire.last_headers().into_iter().collect();

    let lines = gate.end().await;
    let server = collector.span(&format!("POST {ROUTE}")).unwrap();
    assert_eq!(hex(&server.trace_id), trace);
    assert_eq!(hex(&server.parent_span_id), "b7ad6b7169203331");
    assert_eq!(attribute(&server, "http.response.status_code"), "200");
    assert_eq!(attribute(&server, "http.route"), ROUTE);
    assert_eq!(attribute(&server, "imgwire_gate.request_id"), "request-1");
    assert_eq!(attribute(&server, "imgwire_gate.outcome"), "issued");
    let upstream = collector.span("create upload token").unwrap();
    let policies: Vec<_> = ["signed-in", "member", "burst", "daily"]
        .map(|name| collector.span(&format!("policy {name}")).unwrap())
        .into();
    for span in policies.iter().chain([&upstream]) {
        assert_eq!(hex(&span.trace_id), trace);
        assert_eq!(span.parent_span_id, server.span_id);
        assert!(span.start_time_unix_nano >= server.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= server.end_time_unix_nano);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    for policy in &policies {
        assert_eq!(attribute(policy, "imgwire_gate.verdict"), "allow");
    }
    // Imgwire gets the span that called it as the parent.
    let passed_on = format!("00-{trace}-{}-01", hex(&upstream.span_id));
    assert_eq!(sent["traceparent"], passed_on);
    assert_eq!(sent["tracestate"], "vendor=1");
    // The log line names the trace.
    let decision = lines.iter().find(|line| line["target"] == "decision");
    assert_eq!(decision.unwrap()["trace_id"], trace);
}

#[actix_web::test]
async fn a_tracestate_that_is_too_long_is_dropped_and_the_trace_continues() {
    let collector = Collector::start();
    let gate = TracedGate::start(&collector.url).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let pair = format!("vendor={}", "1".repeat(200));
    for (pairs, is_passed_on) in [(2, true), (3, false)] {
        let request = gate
            .ask()
            .header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"));
        // Each header line alone is short enough.
        let request = (0..pairs).fold(request, |request, number| {
            request.header("tracestate", &format!("{number}{pair}"))
        });
        let request = request.bearer(&Token::of("user_1").sign());
        request.send().await.assert_token();
        let sent = gate.imgwire.last_headers();
        let parent = sent.iter().find(|(name, _)| name == "traceparent").unwrap();
        assert!(parent.1.contains(trace), "{parent:?}");
        let states = sent.iter().filter(|(name, _)| name == "tracestate").count();
        assert_eq!(states, usize::from(is_passed_on), "{sent:?}");
    }
}

#[actix_web::test]
async fn a_span_has_the_reason_of_a_denial_and_an_unsampled_trace_is_not_exported() {
    let collector = Collector::start();
    let with_slash = format!("{}/", collector.url);
    let gate = TracedGate::start(&with_slash).await;
    let stranger = Token::of("user_1").with("workspaces", json!(["ws_1", "ws_2"]));
    let answer = gate.ask().bearer(&stranger.sign()).send().await;
    answer.assert_error(403, "workspace_required");
    let unsampled = "00-11111111111111111111111111111111-2222222222222222-00";
    let token = Token::of("user_2").sign();
    let answer = gate.ask().header("traceparent", unsampled).bearer(&token);
    answer.send().await.assert_token();
    gate.end().await;
    let denied = collector.span("policy member").unwrap();
    assert_eq!(attribute(&denied, "imgwire_gate.verdict"), "deny");
    assert!(!attribute(&denied, "imgwire_gate.reason").is_empty());
    let spans = collector.spans.lock().unwrap();
    assert!(
        spans
            .iter()
            .all(|span| hex(&span.trace_id) != "1".repeat(32))
    );
    assert!(
        spans.iter().all(|span| span.name != "policy burst"),
        "it was not evaluated"
    );
}

#[actix_web::test]
async fn an_unreachable_collector_does_not_delay_requests() {
    let nowhere = "http://127.0.0.1:9";
    let gate = TracedGate::start(nowhere).await;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = gate.ask().bearer(&Token::of("user_1").sign()).send().await;
        answer.assert_token();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    gate.end().await;
}

#[actix_web::test]
async fn a_span_keeps_little_of_a_long_path_and_an_unknown_method() {
    let collector = Collector::start();
    let gate = TracedGate::start(&collector.url).await;
    let url = format!("{}/{}", gate.process.url(), "p".repeat(5000));
    let method = "M".repeat(3000).parse().unwrap();
    let request = Request(awc::Client::default().request(method, url));
    request.send().await.assert_error(404, "not_found");
    gate.end().await;
    let span = collector.span("_OTHER").unwrap();
    assert_eq!(attribute(&span, "http.request.method"), "_OTHER");
    assert_eq!(attribute(&span, "url.path").len(), 200);
    assert_eq!(attribute(&span, "http.response.status_code"), "404");
}

#[actix_web::test]
async fn calls_for_uploads_and_images_are_spans_of_their_requests() {
    let collector = Collector::start();
    let imgwire = Emulator::start().unwrap();
    let gate = uploads::gate().set("telemetry.otlp", &collector.url);
    let (_folder, config) = write_config(&gate, imgwire.url());
    let mut gate = GateProcess::start(&config, &[], "info").await;
    let token = Token::of("user_1").sign();
    let url = format!("{}{}", gate.url(), uploads::WORKSPACE);
    let client = awc::Client::default();
    let create = client.post(format!("{url}{}", uploads::CREATE));
    let mut created = create
        .bearer_auth(&token)
        .send_json(&uploads::png())
        .await
        .unwrap();
    let created: Value = serde_json::from_slice(&created.body().await.unwrap()).unwrap();
    let image = format!(
        "{url}{}{}",
        uploads::IMAGES,
        created["image"]["id"].as_str().unwrap()
    );
    let shown = client.get(&image).bearer_auth(&token).send().await;
    assert_eq!(shown.unwrap().status(), 200);
    let deleted = client.delete(&image).bearer_auth(&token).send().await;
    assert_eq!(deleted.unwrap().status(), 204);
    gate.signal("-TERM");
    assert!(gate.end().await.success());
    for (request, call) in [
        (
            "POST /imgwire/{workspace}/api/v1/images/standard_upload",
            "create upload",
        ),
        ("GET /imgwire/{workspace}/api/v1/images/{id}", "read image"),
        (
            "DELETE /imgwire/{workspace}/api/v1/images/{id}",
            "delete image",
        ),
    ] {
        let (request, call) = (
            collector.span(request).unwrap(),
            collector.span(call).unwrap(),
        );
        assert_eq!(call.parent_span_id, request.span_id);
        assert_eq!(attribute(&call, "imgwire_gate.attempts"), "1");
        assert_eq!(attribute(&call, "imgwire_gate.pooled"), "false");
    }
    let created = collector.span("POST /imgwire/{workspace}/api/v1/images/standard_upload");
    assert_eq!(
        attribute(&created.unwrap(), "imgwire_gate.outcome"),
        "created"
    );
}
