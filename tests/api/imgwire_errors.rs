//! Errors that Imgwire gives a reason for: how the gate logs, counts and shows them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    deployment::deploy,
    helpers::{Answer, Gate, ROUTE, Request, Token, eventually},
    hostile_peer::{Act, Asked, HostilePeer, response},
    process::{GateProcess, write_config},
};

pub(crate) const BEGINS: &str = "Imgwire refuses requests";
pub(crate) const ENDS: &str = "Imgwire accepts requests again";

type Acts = Arc<Mutex<Vec<Act>>>;

/// An Imgwire whose response can change while the gate runs.
pub(crate) struct Upstream {
    pub(crate) peer: HostilePeer,
    acts: Acts,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let acts = Acts::default();
        let current = acts.clone();
        let peer = HostilePeer::start(move |_: &Asked| current.lock().unwrap().clone());
        let upstream = Self { peer, acts };
        upstream.accept();
        upstream
    }

    pub(crate) fn acts(&self, acts: impl Into<Vec<Act>>) {
        *self.acts.lock().unwrap() = acts.into();
    }

    pub(crate) fn respond(&self, status: u16, body: &str) {
        self.acts([Act::Send(response(status, body))]);
    }

    pub(crate) fn refuse(&self, error_type: &str) {
        self.respond(400, &domain_error(error_type));
    }

    pub(crate) fn accept(&self) {
        self.respond(200, r#"{"id":"id-1","token":"ut_1"}"#);
    }
}

pub(crate) fn domain_error(error_type: &str) -> String {
    json!({ "detail": format!("About {error_type}"), "error_type": error_type }).to_string()
}

pub(crate) fn gate_before(upstream: &Upstream) -> Gate {
    Gate::accepting(["app"]).imgwire("base_url", upstream.peer.url())
}

/// A gate in a process of its own, with its log.
pub(crate) struct Logged {
    pub(crate) process: GateProcess,
    _folder: TempDir,
}

impl Logged {
    pub(crate) async fn start(gate: &Gate) -> Self {
        let (folder, config) = write_config(gate, "");
        Self {
            process: GateProcess::start(&config, &[], "info").await,
            _folder: folder,
        }
    }

    pub(crate) async fn before(upstream: &Upstream) -> Self {
        Self::start(&gate_before(upstream)).await
    }

    pub(crate) async fn ask(&self) -> Answer {
        let url = format!("{}{ROUTE}", self.process.url());
        let request = Request(awc::Client::default().post(url));
        request.bearer(&Token::of("user_1").sign()).send().await
    }

    async fn manage(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.process.management());
        Request(awc::Client::default().get(url)).send().await
    }

    /// The lines of the metrics that start like this.
    pub(crate) async fn metrics(&self, start: &str) -> Vec<String> {
        let text = self.manage("/metrics").await.text;
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.map(str::to_owned).collect()
    }

    pub(crate) async fn degraded(&self) -> Value {
        degraded(&self.manage("/readyz").await)
    }

    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let mut lines = self.process.lines();
        lines.retain(|line| line["message"] == message);
        lines
    }

    /// Waits until so many decisions are logged. Lines are written in order.
    pub(crate) async fn logged(&self, decisions: usize) {
        eventually("the lines", async || {
            self.process.decisions().len() >= decisions
        })
        .await;
    }
}

/// The degraded parts of a gate that is ready.
#[track_caller]
pub(crate) fn degraded(readiness: &Answer) -> Value {
    assert_eq!(readiness.status, 200);
    let body = readiness.json.as_object().unwrap();
    assert_eq!(body.len(), 2, "{body:?}");
    assert_eq!(body["status"], "ready");
    body["degraded"].clone()
}

/// A failed response of Imgwire, and what the gate makes of it.
struct Row {
    response: Vec<u8>,
    status: Option<u16>,
    reason: &'static str,
    text: &'static str,
    /// In the metric.
    counted: Option<&'static str>,
    /// In the log.
    error_type: Option<&'static str>,
    detail: Option<&'static str>,
}

pub(crate) const KEY: (&str, &str) = ("key_refused", "Imgwire refuses the Server API Key");
const ACCESS: (&str, &str) = (
    "not_authorized",
    "Imgwire denies the Server API Key access to the environment",
);
pub(crate) const RIGHT: (&str, &str) = (
    "not_allowed",
    "Imgwire does not allow the Server API Key to create upload tokens",
);
pub(crate) const PAYMENT: (&str, &str) = (
    "payment_required",
    "Imgwire requires payment: plan, subscription or capacity",
);
const MISSING: (&str, &str) = (
    "not_found",
    "Imgwire does not find the path or the environment",
);
const INVALID: (&str, &str) = (
    "invalid_request",
    "Imgwire rejects the gate's request as invalid",
);
const BASE_URL: (&str, &str) = (
    "wrong_base_url",
    "the base URL does not lead to Imgwire's API",
);

impl Row {
    /// A response without a readable body.
    fn bare(status: u16, (reason, text): (&'static str, &'static str)) -> Self {
        Self {
            response: response(status, "<html>"),
            status: Some(status),
            reason,
            text,
            counted: Some("none"),
            error_type: None,
            detail: None,
        }
    }

    fn domain(
        status: u16,
        error_type: &'static str,
        detail: &'static str,
        reason: (&'static str, &'static str),
    ) -> Self {
        let body = json!({ "detail": detail, "error_type": error_type }).to_string();
        Self {
            response: response(status, &body),
            counted: Some(error_type),
            error_type: Some(error_type),
            detail: Some(detail),
            ..Self::bare(status, reason)
        }
    }

    fn web_page(response: &str) -> Self {
        Self {
            response: response.as_bytes().to_vec(),
            status: None,
            counted: None,
            ..Self::bare(200, BASE_URL)
        }
    }
}

fn rows() -> Vec<Row> {
    let validation = r#"{"detail":[{"loc":["header","x-environment-id"],"msg":"Input should be a valid UUID","type":"uuid_parsing"}]}"#;
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n";
    let large_page = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    vec![
        Row::domain(401, "InvalidTokenError", "The key is invalid", KEY),
        Row::domain(403, "ResourceNotAuthorizedError", "No access", ACCESS),
        Row::domain(403, "OperationNotAllowedError", "No role", RIGHT),
        Row::domain(402, "PaymentRequiredError", "Storage is used up", PAYMENT),
        Row::domain(404, "ResourceNotFoundError", "No environment", MISSING),
        Row {
            response: response(422, validation),
            counted: Some("validation"),
            detail: Some("header.x-environment-id: Input should be a valid UUID (uuid_parsing)"),
            ..Row::bare(422, INVALID)
        },
        // The type counts, whatever the status is.
        Row::domain(400, "PaymentRequiredError", "No plan", PAYMENT),
        Row::domain(429, "PaymentRequiredError", "No capacity", PAYMENT),
        Row::domain(500, "InvalidTokenError", "No key", KEY),
        Row {
            counted: Some("other"),
            ..Row::domain(403, "NewError", "Something new", RIGHT)
        },
        Row::bare(401, KEY),
        Row::bare(402, PAYMENT),
        Row::bare(403, RIGHT),
        Row {
            response: response(404, r#"{"detail":"Not Found"}"#),
            detail: Some("Not Found"),
            ..Row::bare(404, MISSING)
        },
        Row::bare(422, INVALID),
        Row::bare(400, INVALID),
        Row::bare(405, BASE_URL),
        Row::bare(201, BASE_URL),
        Row {
            response: redirect.to_vec(),
            ..Row::bare(302, BASE_URL)
        },
        Row::web_page("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n \n<!doctype html>\n"),
        Row::web_page(&large_page),
    ]
}

/// The name of the alert for a reason.
fn alert_of(reason: &str) -> &'static str {
    match reason {
        "key_refused" | "not_authorized" | "not_allowed" => "ImgwireGateKeyRefused",
        "payment_required" => "ImgwireGatePlanExhausted",
        _ => "ImgwireGateRequestsRefused",
    }
}

#[test]
fn each_reason_of_a_refusal_has_one_alert() {
    let alerts = std::fs::read_to_string(deploy("alerts.yaml")).unwrap();
    for row in rows() {
        let alerts = alerts.split("- alert: ").filter(|alert| {
            let mut words = alert.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            alert.contains("imgwire_gate_imgwire_refusing") && words.any(|word| word == row.reason)
        });
        let names: Vec<_> = alerts.map(|alert| alert.lines().next().unwrap()).collect();
        assert_eq!(names, [alert_of(row.reason)]);
    }
}

#[actix_web::test]
async fn each_error_of_imgwire_is_logged_counted_and_shown_but_not_sent_to_the_client() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    let mut decisions = 0;
    for (number, row) in rows().into_iter().enumerate() {
        let case = format!(
            "{number}: {}",
            String::from_utf8_lossy(&row.response[..80.min(row.response.len())])
        );
        let name = row.counted.unwrap_or("none");
        let errors = format!("imgwire_gate_imgwire_errors_total{{error_type=\"{name}\"}} ");
        let count = async || -> u64 {
            let lines = gate.metrics(&errors).await;
            lines
                .first()
                .map_or(0, |line| line[errors.len()..].parse().unwrap())
        };
        let (counted, asked) = (count().await, upstream.peer.requests());

        upstream.acts([Act::Send(row.response)]);
        let answer = gate.ask().await;
        answer.assert_error(500, "imgwire_failed");
        assert_eq!(upstream.peer.requests(), asked + 1, "{case}: no retry");
        let more = u64::from(row.counted.is_some());
        assert_eq!(count().await, counted + more, "{case}");
        assert_eq!(
            gate.degraded().await,
            json!([format!("imgwire: {}", row.text)]),
            "{case}"
        );
        for line in gate.metrics("imgwire_gate_imgwire_refusing{").await {
            let is_reason = line.contains(&format!("\"{}\"", row.reason));
            assert_eq!(line.ends_with(" 1"), is_reason, "{case}: {line}");
        }

        decisions += 1;
        gate.logged(decisions).await;
        let decision = gate.process.decisions().pop().unwrap();
        assert_eq!(decision["outcome"], "failed");
        assert_eq!(decision["code"], "imgwire_failed");
        let attempts = gate.lines("attempt to create an upload token failed");
        assert_eq!(attempts.len(), number + 1, "{case}");
        let attempt = attempts.last().unwrap();
        assert_eq!(attempt["level"], "WARN");
        assert_eq!(attempt["status"], json!(row.status), "{case}");
        let begins = gate.lines(BEGINS);
        assert_eq!(begins.len(), number + 1, "{case}");
        let begin = begins.last().unwrap();
        assert_eq!(
            (&begin["level"], &begin["reason"]),
            (&json!("ERROR"), &json!(row.text))
        );
        for line in [&decision, attempt, begin] {
            assert_eq!(line["error_type"], json!(row.error_type), "{case}");
            assert_eq!(line["detail"], json!(row.detail), "{case}");
        }

        upstream.accept();
        gate.ask().await.assert_token();
        decisions += 1;
        gate.logged(decisions).await;
        let ends = gate.lines(ENDS);
        assert_eq!(ends.len(), number + 1, "{case}");
        assert_eq!(ends[number]["level"], "ERROR");
        assert_eq!(gate.degraded().await, json!([]));
        for line in gate.metrics("imgwire_gate_imgwire_refusing{").await {
            assert!(line.ends_with(" 0"), "{case}: {line}");
        }
    }
    assert_eq!(
        gate.metrics("imgwire_gate_breaker_opened_total").await,
        ["imgwire_gate_breaker_opened_total 0"]
    );
}
