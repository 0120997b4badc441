//! Every kind of policy in every situation: it allows, denies, fails, may fail, observes, or is skipped.

use std::path::Path;

use serde_json::json;

use crate::{
    helpers::{
        Answer, Application, Entry, Gate, ROUTE, TestApp, Token, expression, quota, rate_limit,
        remote_decision, remote_session, settings, signed_in, storage, upload_intent, upload_route,
        workspace_member,
    },
    service::{Reply, Service},
    upload_records::{png, upload},
};

/// A kind of policy: settings with which it allows and denies the same request, and fails if it can.
struct Row {
    kind: &'static str,
    allows: Entry,
    denies: Entry,
    status: u16,
    code: &'static str,
    fails: Option<Entry>,
    /// Whether its config may say what a failure does.
    takes_on_failure: bool,
    /// Whether it limits uploads, and not tokens.
    uploads: bool,
}

/// The decisions that are counted for the policy `asked`.
#[derive(Debug, PartialEq)]
struct Counted {
    would_deny: f64,
    fault_tolerated: f64,
    faulted: f64,
    denied: f64,
}

fn rows(app: &Service) -> Vec<Row> {
    app.answer("/yes", Reply::json(&json!({ "role": "owner" })));
    app.answer("/no", Reply::status(403));
    app.answer("/nobody", Reply::status(404));
    app.answer("/broken", Reply::status(503));
    let at = |path: &str| format!("{}{path}", app.url);
    let member = |path: &str| workspace_member().url(at(path) + "?{workspace}&{user}");
    let daily = |limit: u32| quota().per(["user"]).limit(limit);
    let burst = |limit: u32| rate_limit().per(["user"]).limit(limit);
    let held = |images: u32| storage().per(["user"]).max_images(images);
    let files = |mime_type: &str| upload_intent().mime_types([mime_type]);
    let row = |kind, allows, denies, status, code| Row {
        kind,
        allows,
        denies,
        status,
        code,
        fails: None,
        takes_on_failure: false,
        uploads: false,
    };
    let failing = |row: Row, fails| Row {
        fails: Some(fails),
        takes_on_failure: row.kind != "signed_in",
        ..row
    };
    vec![
        failing(
            row(
                "signed_in",
                signed_in(["app"]),
                signed_in(["browser"]),
                401,
                "not_signed_in",
            ),
            signed_in(["broken"]),
        ),
        failing(
            row(
                "workspace_member",
                member("/yes"),
                member("/nobody"),
                403,
                "workspace_forbidden",
            ),
            member("/broken"),
        ),
        // The tests look at the second of two attempts.
        row("rate_limit", burst(2), burst(1), 429, "rate_limited"),
        failing(
            row("quota", daily(2), daily(0), 429, "quota_exhausted"),
            daily(2),
        ),
        Row {
            uploads: true,
            ..row("storage", held(2), held(1), 429, "storage_full")
        },
        row(
            "upload_intent",
            files("image/png"),
            files("image/jpeg"),
            403,
            "file_type_forbidden",
        ),
        // An expression without a value denies, because it depends on nothing that can fail.
        row(
            "expression",
            expression("true"),
            expression("subject.claims.nothing > 1"),
            403,
            "rule_forbidden",
        ),
        failing(
            row(
                "remote",
                remote_decision(&at("/yes")),
                remote_decision(&at("/no")),
                403,
                "rule_forbidden",
            ),
            remote_decision(&at("/broken")),
        ),
    ]
}

fn builder(app: &Service, row: &Row, policy: &Entry) -> Gate {
    let broken = remote_session(
        &format!("{}/broken", app.url),
        ["header:authorization"],
        "/id",
    );
    let gate = Gate::bare()
        .policy("signed-in", signed_in(["app"]))
        .identity("broken", broken)
        .policy("asked", policy.clone());
    match row.uploads {
        true => gate.route_with(upload_route(UPLOADS, ["signed-in", "asked"])),
        false => gate.chain(["signed-in", "asked"]),
    }
}

const UPLOADS: &str = "/mine";

fn route(row: &Row) -> &'static str {
    if row.uploads { UPLOADS } else { ROUTE }
}

#[track_caller]
fn assert_allowed(row: &Row, answer: &Answer) {
    match row.uploads {
        true => assert!(answer.json["upload_url"].is_string(), "{answer:?}"),
        false => answer.assert_token(),
    }
}

/// Sends two requests; returns the second answer, and what was counted for both.
async fn ask(gate: Gate, row: &Row, breaks_the_store: bool) -> (Answer, Counted) {
    let gate = gate.start().await;
    if breaks_the_store {
        break_store(gate.folder.path());
    }
    let body = json!({ "workspace": "ws_1", "file": { "mimeType": "image/png", "size": 10 } });
    let token = Token::of("user_1").sign();
    let ask = async || match row.uploads {
        true => upload(&gate.url, UPLOADS, "user_1", &png()).await,
        false => gate.ask().bearer(&token).json(&body).await,
    };
    ask().await;
    let answer = ask().await;
    let counted = async |outcome| counted(&gate, route(row), outcome).await;
    let counted = Counted {
        would_deny: counted("would_deny").await,
        fault_tolerated: counted("fault_tolerated").await,
        faulted: counted("faulted").await,
        denied: counted("denied").await,
    };
    (answer, counted)
}

async fn counted(gate: &TestApp, route: &str, outcome: &str) -> f64 {
    let start = format!(
        "imgwire_gate_decisions_total{{route=\"{route}\",outcome=\"{outcome}\",policy=\"asked\""
    );
    let text = gate.manage("/metrics").await.text;
    let lines = text.lines().filter(|line| line.starts_with(&start));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Refuses every write to the store's file, as a full disk does.
fn break_store(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("gate.db")).unwrap();
    for event in ["INSERT", "UPDATE"] {
        let trigger = format!(
            "CREATE TRIGGER refuse_{event} BEFORE {event} ON quota_counters BEGIN SELECT RAISE(FAIL, 'the disk is full'); END;"
        );
        database.execute_batch(&trigger).unwrap();
    }
}

fn nothing() -> Counted {
    Counted {
        would_deny: 0.0,
        fault_tolerated: 0.0,
        faulted: 0.0,
        denied: 0.0,
    }
}

#[actix_web::test]
async fn every_kind_allows_and_denies_with_its_code() {
    let app = Service::start();
    for row in rows(&app) {
        let (answer, counted) = ask(builder(&app, &row, &row.allows), &row, false).await;
        assert_eq!(
            (answer.status.as_u16(), counted),
            (200, nothing()),
            "{}",
            row.kind
        );
        let (answer, counted) = ask(builder(&app, &row, &row.denies), &row, false).await;
        answer.assert_error(row.status, row.code);
        assert!(counted.denied >= 1.0, "{}: {counted:?}", row.kind);
        assert_eq!(counted.faulted, 0.0, "{}", row.kind);
    }
}

#[actix_web::test]
async fn a_failure_of_every_kind_is_a_fault_unless_on_failure_allows_it() {
    let app = Service::start();
    for row in rows(&app) {
        let Some(fails) = &row.fails else {
            continue;
        };
        let breaks = row.kind == "quota";
        let (answer, counted) = ask(builder(&app, &row, fails), &row, breaks).await;
        answer.assert_error(500, "internal");
        let expected = Counted {
            faulted: 2.0,
            ..nothing()
        };
        assert_eq!(counted, expected, "{}", row.kind);
        if row.takes_on_failure {
            let may_fail = fails.clone().on_failure("allow");
            let (answer, counted) = ask(builder(&app, &row, &may_fail), &row, breaks).await;
            assert_allowed(&row, &answer);
            let expected = Counted {
                fault_tolerated: 2.0,
                ..nothing()
            };
            assert_eq!(counted, expected, "{}", row.kind);
            // A denial stays a denial.
            let denies = row.denies.clone().on_failure("allow");
            let (answer, _) = ask(builder(&app, &row, &denies), &row, false).await;
            answer.assert_error(row.status, row.code);
        }
    }
}

#[actix_web::test]
async fn every_kind_in_observe_mode_is_counted_and_never_denies() {
    let app = Service::start();
    for row in rows(&app) {
        let denies = row.denies.clone().observe();
        let (answer, counted) = ask(builder(&app, &row, &denies), &row, false).await;
        assert_allowed(&row, &answer);
        assert!(counted.would_deny >= 1.0, "{}: {counted:?}", row.kind);
        assert_eq!(
            Counted {
                would_deny: 0.0,
                ..counted
            },
            nothing(),
            "{}",
            row.kind
        );
        if let Some(fails) = &row.fails {
            let fails = fails.clone().observe();
            let (answer, counted) =
                ask(builder(&app, &row, &fails), &row, row.kind == "quota").await;
            assert_allowed(&row, &answer);
            let expected = Counted {
                fault_tolerated: 2.0,
                ..nothing()
            };
            assert_eq!(counted, expected, "{}", row.kind);
        }
    }
}

#[actix_web::test]
async fn a_skipped_policy_of_every_kind_is_not_evaluated() {
    let app = Service::start();
    for row in rows(&app) {
        for (policy, fails) in [(Some(&row.denies), false), (row.fails.as_ref(), true)] {
            let Some(policy) = policy else { continue };
            let skipped = policy.clone().when("request.route == '/elsewhere'");
            let breaks = row.kind == "quota" && fails;
            let (answer, counted) = ask(builder(&app, &row, &skipped), &row, breaks).await;
            assert_eq!(
                (answer.status.as_u16(), counted),
                (200, nothing()),
                "{}",
                row.kind
            );
        }
    }
    let asked = ["/no", "/nobody", "/broken"].map(|path| app.seen(path).len());
    assert_eq!(asked, [0, 0, 0]);
}

#[actix_web::test]
async fn only_kinds_that_can_fail_accept_on_failure() {
    let app = Service::start();
    for row in rows(&app) {
        let policy = row.allows.clone().on_failure("allow");
        let folder = tempfile::tempdir().unwrap();
        let config = builder(&app, &row, &policy).config(&app.url, folder.path());
        let environment = |_: &str| Some("a".repeat(64));
        let loaded = settings::load("gate.toml", &config, &environment);
        assert_eq!(loaded.is_ok(), row.takes_on_failure, "{}", row.kind);
    }
}

#[test]
fn the_pages_list_every_registered_kind() {
    let schema = Application::builder().schema();
    let kinds = |of: &str| {
        let kinds = schema.pointer(&format!("/$defs/{of}/oneOf")).unwrap();
        kinds.as_array().unwrap().clone()
    };
    let page = |name: &str| {
        let page = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name);
        std::fs::read_to_string(page).unwrap()
    };
    let name = |kind: &serde_json::Value| {
        let name = kind["properties"]["kind"]["const"].as_str();
        name.unwrap().to_owned()
    };
    for kind in kinds("PolicySettings") {
        let (name, says) = (name(&kind), kind["description"].as_str().unwrap());
        let row = format!("| [`{name}`](#{name}) | {} |", says.replace('\n', " "));
        assert!(page("policies.md").contains(&row), "{row}");
    }
    for kind in kinds("IdentitySettings") {
        let row = format!("| [`{}`](#", name(&kind));
        assert!(page("identities.md").contains(&row), "{row}");
    }
}
