//! Identity kinds of the operator: the example, on a gate that runs.

use std::{fs, path::Path};

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::{
    api_keys::ApiKeys,
    helpers::{Application, Builder, Gate, TestApp, Token, cli, expression},
    real_parts::blocks,
};

const IMPORTER_KEY: &str = "the key of the importer";

fn with_api_keys(builder: Builder) -> Builder {
    builder.identity_kind::<ApiKeys>()
}

fn example(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/api_keys");
    fs::read_to_string(folder.join(file)).unwrap()
}

fn environment(_: &str) -> Option<String> {
    Some("a-secret-of-at-least-thirty-two-bytes".repeat(2))
}

/// A gate with the identity of the example.
fn builder<const N: usize>(accept: [&str; N]) -> Gate {
    let example: toml::Table = example("gate.toml").parse().unwrap();
    let programs = example["identities"]["programs"].as_table().unwrap();
    Gate::accepting(accept.to_vec())
        .identity("programs", programs.clone())
        .kinds(with_api_keys)
        .secret("IMPORTER_KEY", IMPORTER_KEY)
        .secret("ARCHIVE_KEY", "the key of the archive")
}

async fn explain(app: &TestApp, token: &str) -> Value {
    let request = app.request_management(Method::POST, "/explain");
    request.json(&json!({ "token": token })).await.json
}

#[actix_web::test]
async fn a_registered_identity_kind_judges_like_a_built_in_one() {
    let app = builder(["app", "programs"]).start().await;
    let key = |key: &str| app.ask().header("x-api-key", key);
    key(IMPORTER_KEY).send().await.assert_token();
    app.ask().bearer(IMPORTER_KEY).send().await.assert_token();
    app.ask_as(&Token::of("user_1")).await.assert_token();
    key("another key")
        .send()
        .await
        .assert_error(401, "invalid_credentials");
    key("").send().await.assert_error(401, "not_signed_in");
    let twice = key(IMPORTER_KEY).header("x-api-key", IMPORTER_KEY);
    twice.send().await.assert_error(401, "invalid_credentials");
    // A page of another site can send this header only if a proxy adds it.
    let foreign = key(IMPORTER_KEY).header("origin", "https://evil.example");
    foreign.send().await.assert_error(403, "cross_site");
    // The first addressed identity judges, and a bad credential never falls through.
    let bad = Token::of("user_1").with("exp", json!(1));
    let both = key(IMPORTER_KEY).bearer(&bad.sign());
    both.send().await.assert_error(401, "credentials_expired");
}

#[actix_web::test]
async fn credentials_of_a_registered_kind_start_sessions_and_its_name_is_a_fact() {
    let rule = "subject.identity == 'programs' && subject.id == 'importer'";
    let app = builder(["browser"])
        .exchange(["programs"])
        .policy("importer", expression(rule))
        .chain(["signed-in", "importer"])
        .start()
        .await;
    for (key, status) in [(IMPORTER_KEY, 200), ("the key of the archive", 403)] {
        let begin = app.request(Method::POST, "/api/imgwire/session");
        let begun = begin.header("x-api-key", key).send().await;
        assert_eq!(begun.status, 204, "{begun:?}");
        let asked = app.ask().header("cookie", begun.cookie()).send().await;
        assert_eq!(asked.status, status, "{key}");
    }
}

#[actix_web::test]
async fn explain_and_reload_support_a_registered_identity_kind() {
    let app = builder(["programs"]).start().await;
    let explained = explain(&app, IMPORTER_KEY).await;
    assert_eq!(explained["outcome"], "allow", "{explained}");
    let explained = explain(&app, "another key").await;
    assert_eq!(explained["code"], "invalid_credentials");
    assert_eq!(
        explained["policies"][0]["reason"],
        "identity `programs`: no program has this key"
    );
    let rotated = builder(["programs"]).secret("IMPORTER_KEY", "the next key of it");
    app.reload(&rotated).unwrap();
    let old = app.ask().bearer(IMPORTER_KEY).send().await;
    old.assert_error(401, "invalid_credentials");
    app.ask()
        .bearer("the next key of it")
        .send()
        .await
        .assert_token();
}

#[test]
fn faults_of_a_registered_identity_kind_have_line_and_key() {
    let gate = with_api_keys(Application::builder());
    let config = example("gate.toml");
    gate.load("gate.toml", &config, &environment).unwrap();
    for (from, to, fault) in [
        ("from", "form", "gate.toml:6:1: identities.programs.form: "),
        (
            "\"bearer\"",
            "\"baerer\"",
            "gate.toml:6:8: identities.programs.from: `baerer` must be",
        ),
        (
            "from = [\"header:X-Api-Key\", \"bearer\"]",
            "",
            "identities.programs.from: is required",
        ),
        (
            "[\"header:X-Api-Key\", \"bearer\"]",
            "[]",
            "gate.toml:6:8: identities.programs.from: must name at least one place",
        ),
        (
            "{ env = \"ARCHIVE_KEY\" }",
            "{ file = \"/nowhere\" }",
            "gate.toml:10:11: identities.programs.keys.archive: the file `/nowhere` cannot be read",
        ),
        (
            "archive = {",
            "archive = \"plain\" # {",
            "identities.programs.keys.archive: ",
        ),
        (
            "[\"programs\"]",
            "[\"program\"]",
            "gate.toml:14:11: policies.signed-in.accept: unknown identity `program`; did you mean `programs`?",
        ),
        (
            "api_keys",
            "api_key",
            "gate.toml:5:8: identities.programs.kind: unknown identity kind `api_key`; did you mean `api_keys`?",
        ),
        ("api_keys", "card", ", `api_keys`"),
    ] {
        let config = config.replace(from, to);
        let faults = gate.load("gate.toml", &config, &environment).unwrap_err();
        let found = faults.to_string();
        assert!(found.contains(fault), "{fault}\n\n{found}");
    }
}

#[test]
fn a_registered_kind_that_shadows_a_later_identity_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gate = with_api_keys(Application::builder());
    for (accept, is_valid) in [(["app", "programs"], true), (["programs", "app"], false)] {
        let config = builder(accept).config("https://x.example", folder.path());
        let loaded = gate.load("gate.toml", &config, &environment);
        let faults = loaded.map_or_else(|faults| faults.to_string(), |_| String::new());
        assert_eq!(faults.is_empty(), is_valid, "{accept:?}: {faults}");
        let message = "`app` would never use the bearer token, because `programs`, listed before it, accepts everything";
        assert!(is_valid || faults.contains(message), "{faults}");
    }
}

#[test]
fn the_schema_contains_a_registered_identity_kind() {
    let schema = with_api_keys(Application::builder()).schema();
    let kinds = schema.pointer("/$defs/IdentitySettings/oneOf").unwrap();
    let kinds = kinds.as_array().unwrap();
    let mut own = kinds.iter();
    let own = own.find(|kind| kind["properties"]["kind"]["const"] == "api_keys");
    let own = own.unwrap();
    assert_eq!(own["required"], json!(["kind", "from", "keys"]));
    assert_eq!(own["additionalProperties"], json!(false));
    assert_eq!(
        own["description"],
        "Programs that sign in with a key of their own."
    );
    assert_eq!(kinds.len(), 6);
}

#[test]
#[should_panic(expected = "there is already a kind `api_keys`")]
fn two_identity_kinds_with_one_name_are_refused() {
    let _ = with_api_keys(with_api_keys(Application::builder()));
}

#[test]
fn the_page_about_own_identities_shows_the_example() {
    let config = example("gate.toml");
    let code = example("identity.rs") + &example("main.rs");
    for block in blocks("docs/own-identities.md", "toml") {
        assert!(config.contains(&block), "{block}");
    }
    for block in blocks("docs/own-identities.md", "rust") {
        assert!(code.contains(&block), "{block}");
    }
}

#[test]
fn check_names_a_registered_identity_in_the_chain() {
    let gate = with_api_keys(Application::builder());
    let settings = gate.load("gate.toml", &example("gate.toml"), &environment);
    let chains = cli::describe_chains(&settings.unwrap());
    let line = "1. signed-in (signed_in): the user is signed in by programs; else 401";
    assert!(chains.contains(line), "{chains}");
}
