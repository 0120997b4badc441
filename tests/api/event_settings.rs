//! What the config, `check` and `doctor` say about events.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    doctor_setup::{Setup, protected},
    events::HOOK,
    helpers::{EVENTS_SECRET, Gate, env, settings},
    process::{run, text, write_config},
    service::{Reply, Service},
};

fn warnings(gate: &Gate) -> String {
    let config = gate.config("https://api.imgwire.dev", Path::new("data"));
    let secret = |name: &str| {
        let long = "a-secret-that-is-long-enough-for-everything:sixty-four-bytes-long";
        let is_of_events = name == "TEST_EVENTS_SECRET";
        Some(if is_of_events { EVENTS_SECRET } else { long }.to_owned())
    };
    let loaded = settings::load("gate.toml", &config, &secret);
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    assert!(!format!("{loaded:?}").contains("MfKQ9r8GKYqr"));
    loaded.warnings.to_string()
}

#[test]
fn events_without_a_route_for_uploads_are_a_warning() {
    const URL: &str = "https://app.example.com/hooks";
    let unused = warnings(&Gate::accepting(["app", "browser"]).events(URL));
    let expected = "events: there are no events, because no route has `action = \"upload\"`; write that on a route, or \
                    remove the section";
    assert!(unused.ends_with(expected), "{unused}");
    let gate = Gate::accepting(["app", "browser"]).upload_route("/mine");
    assert_eq!(warnings(&gate.events(URL)), "");
}

#[test]
fn check_prints_where_events_go() {
    let gate = |secret: Value| {
        let gate = Gate::accepting(["app", "browser"]).upload_route("/mine");
        gate.events("https://app.example.com/hooks")
            .set("events.secret", secret)
    };
    let printed = |gate: &Gate| {
        let (_folder, path) = write_config(gate, "https://api.imgwire.dev");
        text(&run(&["check", path.to_str().unwrap()]).stdout)
    };
    let secret = env("TEST_EVENTS_SECRET");
    let one = printed(&gate(secret.clone()));
    let line = "\nevents: POST https://app.example.com/hooks, signed, retried for 7days\n";
    assert!(one.ends_with(line), "{one}");
    let two = printed(&gate(json!([secret, secret])).set("events.keep", "12h"));
    let line =
        "\nevents: POST https://app.example.com/hooks, signed with 2 secrets, retried for 12h\n";
    assert!(two.ends_with(line), "{two}");
}

#[actix_web::test]
async fn doctor_tries_the_receiver_without_an_event() {
    let setup = Setup::new();
    let service = Service::start();
    let gate = |url: &str| protected().upload_route("/mine").events(url);
    let url = format!("{}{HOOK}", service.url);
    for status in [204, 302, 405, 500] {
        service.answer(HOOK, Reply::status(status));
        let report = setup.probe(&gate(&url)).await;
        assert_eq!(report.state("events.url"), "ok", "{report:?}");
        let message = format!("reachable, answers HEAD with {status}");
        assert_eq!(report.point("events.url")["message"], message);
    }
    let seen = service.seen(HOOK);
    assert!(
        seen.iter()
            .all(|seen| seen.method == "HEAD" && seen.body.is_empty())
    );
    assert!(!seen[0].headers.contains_key("webhook-signature"));

    service.go_down().await;
    let report = setup.probe(&gate(&url)).await;
    report.assert(
        "events.url",
        "failed",
        "cannot connect",
        "correct `url` in [events]",
    );
}
