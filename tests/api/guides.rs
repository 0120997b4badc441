//! The guides of `docs/identities.md`: every config in them, tried with tokens like those that they
//! show.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::{
    helpers::{
        Application, Gate, SECRET, SERVER_API_KEY, SESSION_KEY, Token, rate_limit, settings,
    },
    real_parts::blocks,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const GUIDES: &str = "docs/identities.md";

/// The block of the guides that has this table.
pub(crate) fn guide(table: &str) -> String {
    let header = format!("[{table}]");
    let mut blocks = blocks(GUIDES, "toml").into_iter();
    blocks.find(|block| block.contains(&header)).unwrap()
}

fn value<'a>(block: &'a toml::Table, key: &str) -> &'a toml::Value {
    let identities = block["identities"].as_table().unwrap();
    let (_, identity) = identities.iter().next().unwrap();
    identity.get(key).unwrap_or(&toml::Value::Boolean(false))
}

#[actix_web::test]
async fn each_guide_with_a_token_accepts_that_token_and_no_other() {
    let texts = std::fs::read_to_string(format!("{}/{GUIDES}", env!("CARGO_MANIFEST_DIR")));
    let texts = texts.unwrap();
    let guides: Vec<(String, String)> = texts
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| {
            let (config, rest) = rest.split_once("```")?;
            let rest = rest.trim_start().strip_prefix("```json\n")?;
            Some((config.to_owned(), rest.split("```").next()?.to_owned()))
        })
        .collect();
    assert_eq!(
        guides.len(),
        7,
        "one for each provider, and one more for Supabase"
    );
    for (config, payload) in guides {
        // The provider's hosts become paths of a service on this machine.
        let provider = Service::start();
        let here = format!("{}/", provider.url);
        let config = config.replace("https://", &here);
        let payload: Value = serde_json::from_str(&payload.replace("https://", &here)).unwrap();
        let table: toml::Table = config.parse().unwrap();
        let name = table["identities"]
            .as_table()
            .unwrap()
            .keys()
            .next()
            .unwrap();
        let algorithm: Algorithm = value(&table, "algorithms")[0]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let key = SigningKey::new("one", algorithm);
        if algorithm != Algorithm::HS256 {
            publish(&provider, &table, &key);
        }
        let app = Gate::accepting([name])
            .include(&config)
            .secret("SUPABASE_JWT_SECRET", SECRET)
            .start()
            .await;
        let mut token = Token::of("replaced").without("aud").without("workspaces");
        for (claim, value) in payload.as_object().unwrap() {
            token = token.with(claim, value.clone());
        }
        let sign = |token: &Token| match algorithm {
            Algorithm::HS256 => token.sign(),
            _ => key.sign(token),
        };
        let answer = app.ask().bearer(&sign(&token)).send().await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let mut rules = vec!["iss"];
        if value(&table, "audience").is_array() {
            rules.push("aud");
        }
        let required = value(&table, "required_claims");
        rules.extend(
            required
                .as_table()
                .iter()
                .flat_map(|claims| claims.keys().map(String::as_str)),
        );
        for rule in rules {
            for other in [
                token.clone().with(rule, json!("another")),
                token.clone().without(rule),
            ] {
                let answer = app.ask().bearer(&sign(&other)).send().await;
                assert_eq!(
                    (answer.status.as_u16(), answer.code()),
                    (401, "invalid_credentials"),
                    "{name} {rule}"
                );
            }
        }
    }
}

/// Publishes a key at the URL that the guide's config names.
fn publish(provider: &Service, table: &toml::Table, key: &SigningKey) {
    let path = |url: &str| url.strip_prefix(&provider.url).unwrap().to_owned();
    let issuer = value(table, "issuer").as_str().unwrap();
    let keys = match value(table, "jwks_url").as_str() {
        Some(url) => path(url),
        None => {
            assert_eq!(value(table, "discovery").as_bool(), Some(true));
            let keys = "/published-keys";
            let metadata =
                json!({ "issuer": issuer, "jwks_uri": format!("{}{keys}", provider.url) });
            let at = format!(
                "{}/.well-known/openid-configuration",
                path(issuer).trim_end_matches('/')
            );
            provider.answer(&at, Reply::json(&metadata));
            keys.to_owned()
        }
    };
    provider.answer(&keys, Reply::json(&set(&[key])));
}

#[actix_web::test]
async fn every_other_config_of_the_guides_starts() {
    let secrets = [
        "GATE_CLIENT_SECRET",
        "IMGWIRE_GATE_SESSION_KEY",
        "FORMER_SESSION_KEY",
        "APP_JWT_SECRET",
    ];
    for table in [
        "identities.entra",
        "identities.opaque",
        "identities.edge",
        "identities.site",
        "identities.rails",
        "session",
        "identities.customers",
    ] {
        let block = guide(table);
        let config = Gate::bare()
            .server("trusted_proxies", ["127.0.0.1"])
            .policy("all", rate_limit().per([""; 0]).limit(1))
            .chain(["all"])
            .without("identities.app")
            .without("identities.browser")
            .include(&block)
            .config("https://api.imgwire.dev", std::path::Path::new("/nowhere"));
        let environment = |name: &str| {
            assert!(
                name.starts_with("TEST_") || secrets.contains(&name),
                "{name}"
            );
            Some(
                "a-secret-of-sixty-four-bytes-or-more,which-is-what-keys-of-sessions-need"
                    .to_owned(),
            )
        };
        let settings = settings::load(table, &config, &environment);
        let settings = settings.unwrap_or_else(|faults| panic!("{table}: {faults}"));
        Application::builder().build(settings).unwrap();
    }
}

#[actix_web::test]
async fn a_rails_app_may_answer_with_a_numeric_id() {
    let app = Service::start();
    let user = json!({ "user": { "id": 17, "workspaces": ["ws_1"], "plan": null } });
    app.answer("/me.json", Reply::json(&user));
    let block = guide("identities.rails").replace("http://app:3000", &app.url);
    let gate = Gate::accepting(["rails"]).include(&block).start().await;
    let request = gate.ask().header("cookie", "_app_session=abc");
    request.send().await.assert_token();
}

/// All configs of `docs/policies.md` in one, with a route for its requests and cases.
fn config_of_the_policies(folder: &std::path::Path) -> String {
    let blocks = blocks("docs/policies.md", "toml");
    let (cases, config): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| block.contains("[[cases]]"));
    std::fs::write(folder.join("cases.toml"), cases.concat()).unwrap();
    let config = config.concat();
    Gate::bare()
        .store("shared", json!({ "url": "redis://cache:6379" }))
        .chain(["signed-in", "member", "burst"])
        .include(&config)
        .route(
            "/others",
            [
                "signed-in",
                "member-by-app",
                "paying",
                "not-suspended",
                "moderation",
            ],
        )
        .route("/shared", ["signed-in", "shared-burst"])
        .route("/table", ["signed-in", "member-by-table"])
        .route("/database", ["signed-in", "member-by-database"])
        .config("https://api.imgwire.dev", folder)
}

#[test]
fn the_configs_of_scaling_and_operations_are_valid() {
    for file in ["docs/scaling.md", "docs/operations.md"] {
        for block in blocks(file, "toml") {
            let config = Gate::accepting(["app"])
                .include(&block)
                .config("https://api.imgwire.dev", std::path::Path::new("data"));
            let environment = |name: &str| {
                let is_key = name == "TEST_API_KEY";
                Some(if is_key { SERVER_API_KEY } else { SECRET }.to_owned())
            };
            let loaded = settings::load(file, &config, &environment);
            loaded.unwrap_or_else(|faults| panic!("{block}\n{faults}"));
        }
    }
}

#[test]
fn the_policies_of_the_documents_are_valid_and_their_requests_and_cases_pass() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_of_the_policies(folder.path());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = write("gate.toml", &config);
    let request = write(
        "request.json",
        &blocks("docs/policies.md", "json").remove(0),
    );
    let cases = folder.path().join("cases.toml");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_imgwire-gate"))
            .args(arguments)
            .args(["--config", &config])
            .env("TEST_API_KEY", SERVER_API_KEY)
            .env("TEST_SECRET", SECRET)
            .env("TEST_SESSION_KEY", SESSION_KEY)
            .env("APP_TOKEN", "a token")
            .env("DATABASE_PASSWORD", "a password")
            .env("OPA_TOKEN", "a token")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text
    };
    let checked = run(&["check"]);
    assert!(
        checked.contains(
            "POST /api/imgwire/avatar-token (purpose: avatar)\n  │ 1. signed-in (signed_in)"
        ),
        "{checked}"
    );
    let explained = run(&["explain", "--request", &request]);
    assert!(
        explained.contains("deny, 403 workspace_forbidden"),
        "{explained}"
    );
    assert_eq!(
        run(&["test", cases.to_str().unwrap()]),
        "2 passed, 0 failed\n"
    );
}
