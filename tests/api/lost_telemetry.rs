//! Log lines and spans that are lost are counted, and reported in the log.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::Value;

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually},
    hostile_peer::{Act, HostilePeer, response},
    process::{GateProcess, program, write_config},
};

/// The value of a metric on the management listener.
async fn metric(management: &str, line: &str) -> u64 {
    let request = awc::Client::default().get(format!("{management}/metrics"));
    let body = request
        .send()
        .await
        .unwrap()
        .body()
        .limit(1 << 20)
        .await
        .unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.map_or(0, |value| value.trim().parse().unwrap())
}

async fn ask(url: &str) -> u16 {
    let request = awc::Client::default().post(format!("{url}{ROUTE}"));
    let token = Token::of("user_1").sign();
    request
        .bearer_auth(token)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// A gate whose standard error this test reads, or does not.
struct Piped {
    child: Child,
    stderr: BufReader<UnixStream>,
    url: String,
    management: String,
}

impl Piped {
    fn start(config: &Path, level: &str, is_blocking: bool) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(!is_blocking).unwrap();
        let child = program(&[])
            .args(["serve", "--config"])
            .arg(config)
            .env("RUST_LOG", level)
            .stdout(Stdio::null())
            .stderr(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let mut gate = Self {
            child,
            stderr: BufReader::new(ours),
            url: String::new(),
            management: String::new(),
        };
        let listening = gate.line_with("listening");
        let url = |name: &str| format!("http://{}", listening[name].as_str().unwrap());
        (gate.url, gate.management) = (url("address"), url("management"));
        gate
    }

    /// Reads up to a line with this message.
    fn line_with(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(
                self.stderr.read_line(&mut line).unwrap() > 0,
                "no {message}"
            );
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[actix_web::test]
async fn lines_that_a_stalled_reader_does_not_take_are_counted_and_reported() {
    for is_blocking in [true, false] {
        let imgwire = Emulator::start().unwrap();
        let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
        let mut gate = Piped::start(&config, "trace", is_blocking);
        let lost = r#"imgwire_gate_log_lines_lost_total{reason="queue_full"}"#;
        // Nobody reads the log: requests are answered all the same.
        eventually("lost lines", async || {
            for _ in 0..20 {
                assert_eq!(ask(&gate.url).await, 200);
            }
            metric(&gate.management, lost).await > 0
        })
        .await;
        let line = gate.line_with("log lines lost");
        assert_eq!(line["level"], "WARN");
        assert!(line["lost"].as_u64().unwrap() > 0, "{line}");
        assert!(
            line["reason"].as_str().unwrap().contains("too slowly"),
            "{line}"
        );
        assert!(metric(&gate.management, lost).await >= line["lost"].as_u64().unwrap());
    }
}

#[actix_web::test]
async fn lines_that_a_closed_pipe_does_not_take_are_counted() {
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::accepting(["app"]), imgwire.url());
    let mut gate = Piped::start(&config, "info", true);
    let (unread, _) = UnixStream::pair().unwrap();
    gate.stderr = BufReader::new(unread);
    let lost = r#"imgwire_gate_log_lines_lost_total{reason="write_failed"}"#;
    for number in 1..4 {
        assert_eq!(ask(&gate.url).await, 200);
        eventually("lost lines", async || {
            metric(&gate.management, lost).await >= number
        })
        .await;
    }
    let mut rest = String::new();
    let _ = gate.stderr.read_to_string(&mut rest);
}

/// A gate with this collector, and the metric of its lost spans.
async fn traced(collector: &str, wrapper: &[&str]) -> (GateProcess, Emulator, tempfile::TempDir) {
    let imgwire = Emulator::start().unwrap();
    let gate = Gate::accepting(["app"]).set("telemetry.otlp", collector);
    let (folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, wrapper, "info").await;
    (gate, imgwire, folder)
}

fn reports(gate: &GateProcess) -> Vec<Value> {
    let mut lines = gate.lines();
    lines.retain(|line| line["message"] == "spans lost");
    lines
}

#[actix_web::test]
async fn spans_that_the_collector_does_not_take_are_counted_and_reported_with_the_reason() {
    let rejecting = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too \u{1b}[31m many".to_owned(),
        }),
    };
    let rejecting = rejecting.encode_to_vec();
    let mut partial = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        rejecting.len()
    )
    .into_bytes();
    partial.extend(rejecting);
    for (act, label, reason) in [
        (
            vec![Act::Send(response(503, "{}"))],
            "refused",
            "the collector answered with status 503",
        ),
        (
            vec![Act::Send(response(400, "{}"))],
            "refused",
            "the collector answered with status 400",
        ),
        (
            vec![Act::Send(partial)],
            "refused",
            r#"the collector rejected a part: "too \u{1b}[31m many""#,
        ),
        (vec![Act::Close], "unreachable", "the connection failed"),
    ] {
        let collector = HostilePeer::start(move |_| act.clone());
        let fast = ["env", "OTEL_BSP_SCHEDULE_DELAY=50"];
        let (gate, _imgwire, _folder) = traced(&collector.url(), &fast).await;
        let lost = format!(r#"imgwire_gate_spans_lost_total{{reason="{label}"}}"#);
        assert_eq!(metric(gate.management(), &lost).await, 0);
        assert_eq!(ask(&gate.url()).await, 200);
        eventually("lost spans", async || {
            metric(gate.management(), &lost).await >= 2
        })
        .await;
        eventually("the report", async || !reports(&gate).is_empty()).await;
        let report = &reports(&gate)[0];
        assert_eq!(report["level"], "WARN");
        assert!(report["lost"].as_u64().unwrap() >= 1, "{report}");
        assert!(
            report["reason"].as_str().unwrap().contains(reason),
            "{report}"
        );
        // Further losses wait for the next report, which is a minute later.
        for _ in 0..5 {
            assert_eq!(ask(&gate.url()).await, 200);
        }
        let before = metric(gate.management(), &lost).await;
        eventually("more", async || {
            metric(gate.management(), &lost).await > before
        })
        .await;
        assert_eq!(reports(&gate).len(), 1);
    }
}

#[actix_web::test]
async fn spans_that_do_not_fit_into_the_queue_are_counted_and_reported() {
    let collector = HostilePeer::start(|_| vec![Act::Pause(Duration::from_secs(60))]);
    let small = [
        "env",
        "OTEL_BSP_MAX_QUEUE_SIZE=8",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4",
    ];
    let (gate, _imgwire, _folder) = traced(&collector.url(), &small).await;
    let lost = r#"imgwire_gate_spans_lost_total{reason="queue_full"}"#;
    eventually("lost spans", async || {
        assert_eq!(ask(&gate.url()).await, 200);
        metric(gate.management(), lost).await > 0
    })
    .await;
    eventually("the report", async || !reports(&gate).is_empty()).await;
    assert!(
        reports(&gate)[0]["reason"]
            .as_str()
            .unwrap()
            .contains("too slow")
    );
}
