//! Policy kinds of the operator: the example, on a gate that runs.

use std::{fs, path::Path, sync::Arc};

use imgwire_gate::policies::{
    BoxFuture, BuildContext, BuildError, Decision, Policy, PolicyInput, PolicyKind, QuotaSettings,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{
    business_hours::BusinessHours,
    helpers::{Application, Builder, Gate, TestApp, Token, cli},
    real_parts::blocks,
};

fn with_business_hours(builder: Builder) -> Builder {
    builder.policy_kind::<BusinessHours>()
}

fn example(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/business_hours");
    fs::read_to_string(folder.join(file)).unwrap()
}

fn environment(_: &str) -> Option<String> {
    Some("a-secret-of-at-least-thirty-two-bytes".to_owned())
}

/// A gate with the policy of the example, and one more setting.
async fn office(setting: Option<(&str, &str)>) -> TestApp {
    let example: toml::Table = example("gate.toml").parse().unwrap();
    let policy = example["policies"]["office"].as_table().unwrap();
    let gate = Gate::accepting(["app"])
        .policy("office", policy.clone())
        .chain(["signed-in", "office"])
        .kinds(with_business_hours);
    let gate = match setting {
        Some((key, value)) => gate.set(&format!("policies.office.{key}"), value),
        None => gate,
    };
    gate.start().await
}

#[actix_web::test]
async fn a_registered_policy_kind_decides_like_a_built_in_one() {
    let app = office(None).await;
    let token = || Token::of("user_1").with("exp", json!(4_000_000_000_i64));
    for (time, status) in [
        ("2026-11-24T10:00:00Z", 200),
        // In Berlin it is half past five.
        ("2026-11-24T16:30:00Z", 403),
        ("2026-11-24T16:29:59Z", 200),
        // A Sunday.
        ("2026-11-29T10:00:00Z", 403),
    ] {
        app.clock.set(time.parse().unwrap());
        let answer = app.ask_as(&token()).await;
        assert_eq!(answer.status, status, "{time}");
        if status == 403 {
            assert_eq!(answer.code(), "rule_forbidden");
            let message = answer.json["message"].as_str().unwrap();
            assert!(message.starts_with("We take pictures"), "{message}");
        }
    }
    let described = json!({ "subject": { "id": "user_1" } });
    let request = app.request_management(actix_web::http::Method::POST, "/explain");
    let explained = request.json(&described).await;
    assert_eq!(explained.json["policies"][1]["kind"], "business_hours");
    assert_eq!(
        explained.json["policies"][1]["reason"],
        "the office is closed"
    );
}

#[actix_web::test]
async fn a_registered_policy_kind_supports_the_common_settings() {
    let closed = |app: &TestApp| app.clock.set("2026-11-29T10:00:00Z".parse().unwrap());
    let token = Token::of("user_1").with("exp", json!(4_000_000_000_i64));
    for setting in [("mode", "observe"), ("when", "false")] {
        let app = office(Some(setting)).await;
        closed(&app);
        app.ask_as(&token).await.assert_token();
    }
    let app = office(Some(("on_failure", "allow"))).await;
    closed(&app);
    assert_eq!(app.ask_as(&token).await.code(), "rule_forbidden");
}

/// A policy with a bug.
struct Buggy;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

impl PolicyKind for NoSettings {
    const NAME: &'static str = "buggy";

    fn describe(&self) -> String {
        "nothing".to_owned()
    }

    fn build(&self, _: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(Buggy))
    }
}

impl Policy for Buggy {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async { panic!("a bug") })
    }
}

fn with_bug(builder: Builder) -> Builder {
    builder.policy_kind::<NoSettings>()
}

#[actix_web::test]
async fn a_panic_in_a_policy_fails_only_its_own_request() {
    let app = Gate::accepting(["app"])
        .policy(
            "bug",
            json!({ "kind": "buggy", "when": "subject.id == 'user_1'" }),
        )
        .chain(["signed-in", "bug"])
        .kinds(with_bug)
        .start()
        .await;
    for _ in 0..3 {
        let answer = app.ask_as(&Token::of("user_1")).await;
        answer.assert_error(500, "internal");
        app.ask_as(&Token::of("user_2")).await.assert_token();
    }
}

#[test]
fn faults_of_a_registered_policy_kind_have_line_and_key() {
    let gate = with_business_hours(Application::builder());
    let config = example("gate.toml");
    gate.load("gate.toml", &config, &environment).unwrap();
    let faults = |from: &str, to: &str| {
        let config = config.replace(from, to);
        let faults = gate.load("gate.toml", &config, &environment).unwrap_err();
        faults.to_string()
    };
    for (from, to, fault) in [
        (
            "\"09:00\"",
            "\"nine\"",
            "gate.toml:16:9: policies.office.opens: ",
        ),
        (
            "\"09:00\"",
            "\"18:00\"",
            "gate.toml:14:1: policies.office: `opens` must be before",
        ),
        (
            "opens = \"09:00\"",
            "",
            "policies.office.opens: is required",
        ),
        (
            "Europe/Berlin",
            "Europe/Nowhere",
            "gate.toml:18:12: policies.office.timezone: ",
        ),
        ("opens", "starts", "policies.office.starts: "),
        (
            "[policies.office]\n",
            "[policies.office]\non_failure = \"maybe\"\n",
            "policies.office.on_failure: ",
        ),
        (
            "business_hours",
            "business_days",
            "did you mean `business_hours`?",
        ),
        ("business_hours", "opening_times", ", `business_hours`"),
    ] {
        let found = faults(from, to);
        assert!(found.contains(fault), "{fault}\n\n{found}");
    }
}

#[test]
fn check_describes_a_registered_policy_kind() {
    let gate = with_business_hours(Application::builder());
    let settings = gate.load("gate.toml", &example("gate.toml"), &environment);
    let chains = cli::describe_chains(&settings.unwrap());
    let line =
        "2. office (business_hours): between 09:00:00 and 17:30:00 on a working day; else 403";
    assert!(chains.contains(line), "{chains}");
}

#[test]
fn the_page_about_own_policies_shows_the_example() {
    let (config, code) = (
        example("gate.toml"),
        example("policy.rs") + &example("main.rs"),
    );
    for block in blocks("docs/own-policies.md", "toml") {
        assert!(config.contains(&block), "{block}");
    }
    for block in blocks("docs/own-policies.md", "rust") {
        // The page omits the attributes of the example.
        for line in block.lines().filter(|line| !line.starts_with("#[")) {
            assert!(code.contains(line), "{line}");
        }
    }
}

#[test]
fn the_schema_contains_a_registered_policy_kind() {
    let schema = with_business_hours(Application::builder()).schema();
    let kinds = schema.pointer("/$defs/PolicySettings/oneOf").unwrap();
    let kinds = kinds.as_array().unwrap();
    let own = kinds
        .iter()
        .find(|kind| kind["properties"]["kind"]["const"] == "business_hours");
    let properties = &own.unwrap()["properties"];
    for key in [
        "opens",
        "closes",
        "timezone",
        "when",
        "mode",
        "message",
        "on_failure",
    ] {
        assert!(properties.get(key).is_some(), "{key}");
    }
    assert_eq!(kinds.len(), 9);
}

#[test]
#[should_panic(expected = "there is already a kind `quota`")]
fn a_built_in_policy_kind_cannot_be_replaced() {
    let _ = Application::builder().policy_kind::<QuotaSettings>();
}
