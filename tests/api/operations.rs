//! What operators have: traces, a log that they can turn up, restarts that nobody notices, and the files of `deploy`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::future::join_all;
use imgwire_gate::{sandbox::emulator::Emulator, telemetry::Metrics};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    helpers::{ROUTE, Recipe, Token, eventually},
    process::{GateProcess, write_config},
    real_parts::{Running, are_here, blocks, free_port},
};

/// A collector of OpenTelemetry's, which keeps what it gets.
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
    let recipe = Recipe {
        more: format!("[telemetry]\notlp = \"{}\"", collector.url),
        ..Recipe::default()
    };
    let mut gate = recipe.start().await;
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

    // What is left is sent when the gate ends.
    gate.begin_stop();
    let imgwire = gate.imgwire.url().to_owned();
    gate.stopped().await;
    assert!(imgwire.starts_with("http://"));
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
    // Imgwire is told of the span that called it.
    let passed_on = format!("00-{trace}-{}-01", hex(&upstream.span_id));
    assert_eq!(sent["traceparent"], passed_on);
    assert_eq!(sent["tracestate"], "vendor=1");
}

#[actix_web::test]
async fn a_trace_goes_on_without_a_tracestate_that_is_too_long() {
    let collector = Collector::start();
    let recipe = Recipe {
        more: format!("[telemetry]\notlp = \"{}\"", collector.url),
        ..Recipe::default()
    };
    let gate = recipe.start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let pair = format!("vendor={}", "1".repeat(200));
    for (pairs, is_passed_on) in [(2, true), (3, false)] {
        let request = gate
            .ask()
            .header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"));
        // On lines of its own, each is short enough.
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
async fn a_span_says_why_and_a_trace_that_is_not_sampled_has_none() {
    let collector = Collector::start();
    let recipe = Recipe {
        more: format!("[telemetry]\notlp = \"{}/\"", collector.url),
        ..Recipe::default()
    };
    let mut gate = recipe.start().await;
    let stranger = Token::of("user_1").with("workspaces", json!(["ws_1", "ws_2"]));
    gate.ask_as(&stranger)
        .await
        .assert_error(403, "workspace_required");
    let unsampled = "00-11111111111111111111111111111111-2222222222222222-00";
    let token = Token::of("user_2").sign();
    let answer = gate.ask().header("traceparent", unsampled).bearer(&token);
    answer.send().await.assert_token();
    gate.begin_stop();
    gate.stopped().await;
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
        "it was not asked"
    );
}

#[actix_web::test]
async fn a_collector_that_is_gone_costs_no_request_anything() {
    let recipe = Recipe {
        more: "[telemetry]\notlp = \"http://127.0.0.1:9\"".to_owned(),
        ..Recipe::default()
    };
    let mut gate = recipe.start().await;
    for _ in 0..20 {
        let began = Instant::now();
        gate.ask_as(&Token::of("user_1")).await.assert_token();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    gate.begin_stop();
    gate.stopped().await;
}

#[actix_web::test]
async fn the_log_is_turned_up_and_down_while_the_gate_runs() {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe::accepting("[\"app\"]", "");
    let (_folder, config) = write_config(&recipe, imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let token = Token::of("user_1").sign();
    let client = awc::Client::default();
    let set = async |filter: &str| {
        let url = format!("{}/log", gate.management());
        let request = client.put(url).send_json(&json!({ "filter": filter }));
        request.await.unwrap().status().as_u16()
    };
    let levels = || {
        let levels = gate.lines().into_iter();
        let levels = levels.filter_map(|line| line["level"].as_str().map(str::to_owned));
        levels.collect::<BTreeSet<_>>()
    };
    let decisions = || {
        let lines = gate.lines();
        lines
            .iter()
            .filter(|line| line["target"] == "decision")
            .count()
    };
    gate.ask(&token).await;
    eventually("a decision", async || decisions() == 1).await;
    assert!(!levels().contains("DEBUG"));

    // By level and target; decisions are written whatever the filter says of them.
    assert_eq!(
        set("info,imgwire_gate=debug,awc=debug,actix_http=debug,decision=off").await,
        204
    );
    let mut shown = client
        .get(format!("{}/log", gate.management()))
        .send()
        .await
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.body().await.unwrap()).unwrap();
    assert!(
        shown["filter"].as_str().unwrap().contains("decision=off"),
        "{shown}"
    );
    gate.ask(&token).await;
    eventually("the second decision", async || decisions() == 2).await;
    let mut expected = 2;
    for filter in [
        "trace",
        "off",
        "error",
        "decision=error",
        "decision[{outcome}]=off",
        "off,decision[{outcome}]=off,decision[{status}]=off",
        "[request]=off,decision=warn",
        "",
    ] {
        assert_eq!(set(filter).await, 204, "{filter}");
        gate.ask(&token).await;
        expected += 1;
        eventually(filter, async || decisions() == expected).await;
    }
    assert!(levels().contains("TRACE"));

    // What is wrong changes nothing, and only JSON may ask.
    assert_eq!(set("imgwire_gate=loud").await, 400);
    let form = client
        .put(format!("{}/log", gate.management()))
        .send_body("filter=off");
    assert_eq!(form.await.unwrap().status(), 415);
    gate.ask(&token).await;
    eventually("the last decision", async || decisions() == expected + 1).await;
}

#[actix_web::test]
async fn malformed_requests_fill_no_log_and_all_are_counted() {
    let imgwire = Emulator::start().unwrap();
    let recipe = Recipe::accepting("[\"app\"]", "");
    let (_folder, config) = write_config(&recipe, imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let lines = |target: &str| {
        let lines = gate.lines().into_iter();
        lines
            .filter(|line| {
                line["target"]
                    .as_str()
                    .is_some_and(|found| found.starts_with(target))
            })
            .collect::<Vec<_>>()
    };
    let client = awc::Client::default();
    let mut answer = client
        .post(format!("{}/nowhere?secret=1", gate.url()))
        .insert_header(("x-request-id", "request-1"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    answer.body().await.unwrap();
    eventually("the line", async || lines("refused").len() == 1).await;
    let line = &lines("refused")[0];
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["request_id"], "request-1");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(
        (&line["method"], &line["path"]),
        (&json!("POST"), &json!("/nowhere"))
    );
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(404), &json!("not_found"))
    );

    // As many that reach a handler as that the HTTP parser refuses.
    const EACH: u64 = 150;
    let port: u16 = gate.url().rsplit(':').next().unwrap().parse().unwrap();
    for number in 0..EACH {
        let url = format!("{}{ROUTE}/{number}", gate.url());
        client.get(url).send().await.unwrap().body().await.unwrap();
        let mut parser = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut parser, b"\0\0\0 HTTP\r\n\r\n").unwrap();
        let mut refusal = Vec::new();
        std::io::Read::read_to_end(&mut parser, &mut refusal).unwrap();
        assert!(refusal.starts_with(b"HTTP/1.1 400"), "{refusal:?}");
    }
    let left_out = || {
        let lines = gate.lines().into_iter();
        let left_out = lines.filter_map(|line| line["left_out"].as_u64());
        left_out.collect::<Vec<_>>()
    };
    let written = || (lines("refused").len() + lines("actix_http").len()) as u64;
    eventually("the count", async || {
        written() + left_out().iter().sum::<u64>() == 2 * EACH + 1
    })
    .await;
    assert!(!lines("actix_http").is_empty());
    let seconds = left_out().len() as u64 + 2;
    assert!(written() <= 20 * seconds + 1, "{} in {seconds}", written());
    assert!(left_out().iter().sum::<u64>() > EACH, "{:?}", left_out());
    // Decisions are not affected.
    gate.ask(&Token::of("user_1").sign()).await;
    eventually("the decision", async || lines("decision").len() == 1).await;
}

/// Three gates on addresses of their own, with the same two ports.
struct Fleet {
    imgwire: Emulator,
    folder: tempfile::TempDir,
    port: u16,
    management: u16,
    gates: Vec<GateProcess>,
}

impl Fleet {
    async fn start() -> Self {
        let mut fleet = Self {
            imgwire: Emulator::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            management: free_port(),
            gates: Vec::new(),
        };
        for number in 1..=3 {
            let gate = fleet.gate(number).await;
            fleet.gates.push(gate);
        }
        fleet
    }

    /// The gate at 127.0.0.`number`, as it comes out of the box.
    async fn gate(&self, number: usize) -> GateProcess {
        let recipe = Recipe {
            bind: Some(format!("127.0.0.{number}:{}", self.port)),
            server: "shutdown_delay = \"1s\"".to_owned(),
            ..Recipe::accepting("[\"app\"]", "")
        };
        let config = recipe.config(self.imgwire.url(), self.folder.path());
        let management = format!("bind = \"127.0.0.{number}:{}\"", self.management);
        let config = config.replace("bind = \"127.0.0.1:0\"", &management);
        let path = self.folder.path().join(format!("gate-{number}.toml"));
        fs::write(&path, config).unwrap();
        GateProcess::start_with(&path, &[], "warn,imgwire_gate=info", &[]).await
    }

    /// A config of `deploy` or the documentation, with these gates in it.
    fn config(&self, text: &str) -> PathBuf {
        let mut text = text.to_owned();
        for number in 1..=3 {
            let name = format!("gate-{number}:8080");
            text = text.replace(&name, &format!("127.0.0.{number}:{}", self.port));
        }
        let path = self.folder.path().join("proxy");
        let text = text.replace("9090", &self.management.to_string());
        fs::write(&path, text).unwrap();
        path
    }
}

/// Ends each of three gates in turn, and starts it again, while callers keep asking through the proxy on `port`: none
/// of them meets anything but a token.
async fn nobody_notices(fleet: &mut Fleet, port: u16) {
    let url = format!("http://127.0.0.1:{port}");
    let token = Token::of("user_1").sign();
    eventually("the proxy", async || {
        GateProcess::ask_at(&url, &token).await == Some(200)
    })
    .await;
    let client = awc::Client::builder()
        .timeout(Duration::from_secs(20))
        .finish();
    let is_over = std::cell::Cell::new(false);
    let callers = (0..12).map(|_| async {
        let mut answers = Vec::new();
        while !is_over.get() {
            let request = client.post(format!("{url}{ROUTE}"));
            let answer = request.bearer_auth(&token).send().await;
            answers.push(answer.map_or(0, |answer| answer.status().as_u16()));
        }
        answers
    });
    let restarts = async {
        for number in 1..=3 {
            let mut gate = fleet.gates.remove(0);
            gate.signal("-TERM");
            assert_eq!(gate.end().await.code(), Some(0));
            let again = fleet.gate(number).await;
            fleet.gates.push(again);
            // The proxy finds it before the next one goes.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        is_over.set(true);
    };
    let (answers, ()) = futures_util::future::join(join_all(callers), restarts).await;
    let answers = answers.concat();
    let failed: Vec<_> = answers.iter().filter(|status| **status != 200).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", answers.len());
    assert!(answers.len() > 100, "{}", answers.len());
}

#[actix_web::test]
async fn gates_are_restarted_behind_caddy_and_not_one_request_fails() {
    if !are_here(&["caddy"]) {
        return;
    }
    let mut fleet = Fleet::start().await;
    let port = free_port();
    let text = fs::read_to_string(deploy("Caddyfile")).unwrap();
    let config = fleet.config(&text.replace("\n:8080 {", &format!("\nhttp://127.0.0.1:{port} {{")));
    let arguments = [
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        config.to_str().unwrap(),
    ];
    let _caddy = Running::start("caddy", &arguments, &config);
    nobody_notices(&mut fleet, port).await;
}

#[actix_web::test]
async fn gates_are_restarted_behind_haproxy_and_not_one_request_fails() {
    if !are_here(&["haproxy"]) {
        return;
    }
    let mut fleet = Fleet::start().await;
    let port = free_port();
    let [text] = &blocks("docs/operations.md", "haproxy")[..] else {
        panic!("one block")
    };
    let config = fleet.config(&text.replace("bind :80\n", &format!("bind 127.0.0.1:{port}\n")));
    let arguments = ["-db", "-f", config.to_str().unwrap()];
    let _haproxy = Running::start("haproxy", &arguments, &config);
    nobody_notices(&mut fleet, port).await;
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

#[track_caller]
fn passes(command: &mut Command) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let output = [stdout, stderr].concat();
    assert!(status.success(), "{}", String::from_utf8_lossy(&output));
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_are_to() {
    if are_here(&["promtool"]) {
        passes(
            Command::new("promtool")
                .args(["check", "rules"])
                .arg(deploy("alerts.yaml")),
        );
        passes(
            Command::new("promtool")
                .args(["test", "rules"])
                .arg(deploy("alerts.test.yaml")),
        );
    }
}

#[test]
fn every_alert_has_its_page_in_the_runbook() {
    let alerts = fs::read_to_string(deploy("alerts.yaml")).unwrap();
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    let runbook = fs::read_to_string(runbook).unwrap();
    let alerts: BTreeSet<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let pages: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(alerts, pages);
}

/// What a text names of the gate's metrics, without what their types append.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let names = words.filter(|word| word.starts_with("imgwire_gate_"));
    let suffixes = ["_total", "_bucket", "_info"];
    names
        .map(|name| {
            let plain = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            plain.unwrap_or(name).to_owned()
        })
        .collect()
}

#[actix_web::test]
async fn every_exposed_metric_has_a_declared_name() {
    let app = Recipe::default().start().await;
    app.ask_as(&Token::of("user_1")).await.assert_token();
    let text = app.manage("/metrics").await.text;
    let exposed: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(exposed.len() > 10, "{text}");
    for name in exposed {
        assert!(Metrics::NAMES.contains(&name), "{name}");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are_and_the_dashboard_shows_all() {
    let there_are: BTreeSet<_> = Metrics::NAMES.iter().map(ToString::to_string).collect();
    let alerts = fs::read_to_string(deploy("alerts.yaml")).unwrap();
    assert!(named(&alerts).is_subset(&there_are), "{:?}", named(&alerts));
    let dashboard = fs::read_to_string(deploy("dashboard.json")).unwrap();
    assert_eq!(named(&dashboard), there_are);
}

#[test]
fn the_dashboards_panels_have_places_of_their_own_and_queries_that_prometheus_understands() {
    let dashboard = fs::read_to_string(deploy("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert_eq!(dashboard["uid"], "imgwire-gate");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        let place = &panel["gridPos"];
        let number = |key: &str| place[key].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24);
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(taken.insert((x, y)), "{}", panel["title"]);
            }
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            rules.push_str(&format!(
                "      - record: dashboard:{}\n        expr: >-\n          {query}\n",
                rules.len()
            ));
        }
    }
    if are_here(&["promtool"]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.yaml");
        fs::write(&file, rules).unwrap();
        passes(Command::new("promtool").args(["check", "rules"]).arg(file));
    }
}

#[test]
fn compose_and_kubernetes_take_their_files() {
    if are_here(&["docker-compose"]) {
        let file = deploy("compose.yaml");
        passes(
            Command::new("docker-compose")
                .arg("-f")
                .arg(file)
                .args(["config", "-q"]),
        );
    }
    if are_here(&["kubernetes-validate"]) {
        passes(
            Command::new("kubernetes-validate")
                .arg("--strict")
                .arg(deploy("kubernetes.yaml")),
        );
    }
}

#[test]
fn the_config_of_the_deployment_is_valid_and_the_same_everywhere() {
    let config = fs::read_to_string(deploy("gate.toml")).unwrap();
    let kubernetes = fs::read_to_string(deploy("kubernetes.yaml")).unwrap();
    let (_, inline) = kubernetes.split_once("  config.toml: |\n").unwrap();
    let inline = inline.lines().take_while(|line| *line != "---");
    let inline: String = inline
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    assert_eq!(inline, config);

    let secrets = tempfile::tempdir().unwrap();
    let compose = fs::read_to_string(deploy("compose.yaml")).unwrap();
    for line in compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("file: ./secrets/"))
    {
        fs::write(secrets.path().join(line), "s".repeat(64)).unwrap();
    }
    let config = config.replace("/run/secrets", secrets.path().to_str().unwrap());
    let loaded = imgwire_gate::server::settings::load("gate.toml", &config, &|_| None);
    loaded.unwrap_or_else(|faults| panic!("{faults}"));
}
