//! Every kind of policy in every situation: it allows, denies, fails, may fail, is observed, is skipped.

use std::path::Path;

use imgwire_gate::server::Application;
use serde_json::json;

use crate::{
    helpers::{Answer, ROUTE, Recipe, TestApp, Token},
    service::{Reply, Service},
};

/// A kind of policy: settings with which it allows and denies the same request, and fails if it can.
struct Row {
    kind: &'static str,
    allows: String,
    denies: String,
    status: u16,
    code: &'static str,
    fails: Option<String>,
    /// Whether its config may say what a failure does.
    takes_on_failure: bool,
}

/// What is counted of a policy that is asked as `asked`.
#[derive(Debug, PartialEq)]
struct Counted {
    would_deny: f64,
    fault_overlooked: f64,
    faulted: f64,
    denied: f64,
}

fn rows(app: &Service) -> Vec<Row> {
    app.answer("/yes", Reply::json(&json!({ "role": "owner" })));
    app.answer("/no", Reply::status(403));
    app.answer("/nobody", Reply::status(404));
    app.answer("/broken", Reply::status(503));
    let url = &app.url;
    let member = |path: &str| format!("url = \"{url}{path}?{{workspace}}&{{user}}\"");
    let quota = |limit: u32| {
        format!("per = [\"user\"]\nlimit = {limit}\nwindow = \"day\"\nstore = \"main\"")
    };
    let burst = |limit: u32| format!("per = [\"user\"]\nlimit = {limit}\nperiod = \"1h\"");
    let row = |kind, allows: &str, denies: &str, status, code| Row {
        kind,
        allows: allows.to_owned(),
        denies: denies.to_owned(),
        status,
        code,
        fails: None,
        takes_on_failure: false,
    };
    let failing = |row: Row, fails: &str| Row {
        fails: Some(fails.to_owned()),
        takes_on_failure: row.kind != "signed_in",
        ..row
    };
    vec![
        failing(
            row(
                "signed_in",
                "accept = [\"app\"]",
                "accept = [\"browser\"]",
                401,
                "not_signed_in",
            ),
            "accept = [\"broken\"]",
        ),
        failing(
            row(
                "workspace_member",
                &member("/yes"),
                &member("/nobody"),
                403,
                "workspace_forbidden",
            ),
            &member("/broken"),
        ),
        // The second attempt of two is looked at.
        row("rate_limit", &burst(2), &burst(1), 429, "rate_limited"),
        failing(
            row("quota", &quota(2), &quota(0), 429, "quota_exhausted"),
            &quota(2),
        ),
        row(
            "upload_intent",
            "mime_types = [\"image/png\"]",
            "mime_types = [\"image/jpeg\"]",
            403,
            "file_type_forbidden",
        ),
        // Without a value it denies: it does not depend on anything that can be down.
        row(
            "expression",
            "allow = \"true\"",
            "allow = \"subject.claims.nothing > 1\"",
            403,
            "rule_forbidden",
        ),
        failing(
            row(
                "remote",
                &format!("url = \"{url}/yes\""),
                &format!("url = \"{url}/no\""),
                403,
                "rule_forbidden",
            ),
            &format!("url = \"{url}/broken\""),
        ),
    ]
}

fn recipe(app: &Service, kind: &str, settings: &str) -> Recipe {
    let broken = format!(
        "[identities.broken]\nkind = \"remote\"\nurl = \"{}/broken\"\nforward = [\"header:authorization\"]\nsubject = \"/id\"",
        app.url
    );
    let recipe = Recipe::accepting("[\"app\"]", &broken);
    Recipe {
        policies: format!(
            "{}\n[policies.asked]\nkind = \"{kind}\"\n{settings}",
            recipe.policies
        ),
        chain: "[\"signed-in\", \"asked\"]".to_owned(),
        ..recipe
    }
}

/// Asks twice; what came the second time, and what was counted of both.
async fn ask(recipe: Recipe, breaks_the_store: bool) -> (Answer, Counted) {
    let gate = recipe.start().await;
    if breaks_the_store {
        break_store(gate.folder.path());
    }
    let body = json!({ "workspace": "ws_1", "file": { "mimeType": "image/png", "size": 10 } });
    let token = Token::of("user_1").sign();
    let ask = async || gate.ask().bearer(&token).json(&body).await;
    ask().await;
    let answer = ask().await;
    let counted = Counted {
        would_deny: counted(&gate, "would_deny").await,
        fault_overlooked: counted(&gate, "fault_overlooked").await,
        faulted: counted(&gate, "faulted").await,
        denied: counted(&gate, "denied").await,
    };
    (answer, counted)
}

async fn counted(gate: &TestApp, outcome: &str) -> f64 {
    let start = format!(
        "imgwire_gate_decisions_total{{route=\"{ROUTE}\",outcome=\"{outcome}\",policy=\"asked\""
    );
    let text = gate.manage("/metrics").await.text;
    let lines = text.lines().filter(|line| line.starts_with(&start));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Has every write to the store's file refused, as a full disk does.
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
        fault_overlooked: 0.0,
        faulted: 0.0,
        denied: 0.0,
    }
}

#[actix_web::test]
async fn it_allows_and_denies_with_its_own_code() {
    let app = Service::start();
    for row in rows(&app) {
        let (answer, counted) = ask(recipe(&app, row.kind, &row.allows), false).await;
        assert_eq!(
            (answer.status.as_u16(), counted),
            (200, nothing()),
            "{}",
            row.kind
        );
        let (answer, counted) = ask(recipe(&app, row.kind, &row.denies), false).await;
        answer.assert_error(row.status, row.code);
        assert!(counted.denied >= 1.0, "{}: {counted:?}", row.kind);
        assert_eq!(counted.faulted, 0.0, "{}", row.kind);
    }
}

#[actix_web::test]
async fn a_failure_is_a_fault_unless_it_may_fail() {
    let app = Service::start();
    for row in rows(&app) {
        let Some(fails) = &row.fails else {
            continue;
        };
        let breaks = row.kind == "quota";
        let (answer, counted) = ask(recipe(&app, row.kind, fails), breaks).await;
        answer.assert_error(500, "internal");
        let expected = Counted {
            faulted: 2.0,
            ..nothing()
        };
        assert_eq!(counted, expected, "{}", row.kind);
        if row.takes_on_failure {
            let may_fail = format!("{fails}\non_failure = \"allow\"");
            let (answer, counted) = ask(recipe(&app, row.kind, &may_fail), breaks).await;
            answer.assert_token();
            let expected = Counted {
                fault_overlooked: 2.0,
                ..nothing()
            };
            assert_eq!(counted, expected, "{}", row.kind);
            // Only failures are let through.
            let denies = format!("{}\non_failure = \"allow\"", row.denies);
            let (answer, _) = ask(recipe(&app, row.kind, &denies), false).await;
            answer.assert_error(row.status, row.code);
        }
    }
}

#[actix_web::test]
async fn observed_it_is_counted_and_never_denies() {
    let app = Service::start();
    for row in rows(&app) {
        let denies = format!("{}\nmode = \"observe\"", row.denies);
        let (answer, counted) = ask(recipe(&app, row.kind, &denies), false).await;
        answer.assert_token();
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
            let fails = format!("{fails}\nmode = \"observe\"");
            let (answer, counted) = ask(recipe(&app, row.kind, &fails), row.kind == "quota").await;
            answer.assert_token();
            let expected = Counted {
                fault_overlooked: 2.0,
                ..nothing()
            };
            assert_eq!(counted, expected, "{}", row.kind);
        }
    }
}

#[actix_web::test]
async fn skipped_it_is_not_asked_at_all() {
    let app = Service::start();
    for row in rows(&app) {
        for settings in [Some(&row.denies), row.fails.as_ref()]
            .into_iter()
            .flatten()
        {
            let skipped = format!("{settings}\nwhen = \"request.route == '/elsewhere'\"");
            let breaks = row.kind == "quota" && settings != &row.denies;
            let (answer, counted) = ask(recipe(&app, row.kind, &skipped), breaks).await;
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
async fn a_kind_that_cannot_fail_does_not_say_what_then() {
    let app = Service::start();
    for row in rows(&app) {
        let settings = format!("{}\non_failure = \"allow\"", row.allows);
        let folder = tempfile::tempdir().unwrap();
        let config = recipe(&app, row.kind, &settings).config(&app.url, folder.path());
        let environment = |_: &str| Some("a".repeat(64));
        let loaded = imgwire_gate::server::settings::load("gate.toml", &config, &environment);
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
