//! The documents' configs. Guides with a provider or an app have tests of their own.

use serde_json::{Value, json};

use crate::{
    certificates::Authority,
    helpers::{
        Application, Gate, ROUTE, SECRET, SERVER_API_KEY, SESSION_KEY, rate_limit, settings,
    },
    process::{program, text},
    real_parts::blocks,
};

const GUIDES: &str = "docs/identities.md";

/// The block of the guides that has this table.
pub(crate) fn guide(table: &str) -> String {
    let header = format!("[{table}]");
    let mut blocks = blocks(GUIDES, "toml").into_iter();
    blocks.find(|block| block.contains(&header)).unwrap()
}

/// A guide with a section of its own: its config, and what a token or an answer of the provider says.
pub(crate) struct Guide {
    pub(crate) config: String,
    pub(crate) payload: String,
}

/// The guide under this heading.
pub(crate) fn section(heading: &str) -> Guide {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDES);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("\n### {heading}\n")).unwrap();
    let section = rest.split("\n##").next().unwrap();
    let block = |language: &str| {
        let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
        rest.split("```").next().unwrap().to_owned()
    };
    Guide {
        config: block("toml"),
        payload: block("json"),
    }
}

/// Runs `check` on the guide's config, and `explain` for a member of `workspace` with these claims.
pub(crate) fn check_and_explain(guide: &Guide, workspace: &str, claims: &Value, secrets: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let table: toml::Table = guide.config.parse().unwrap();
    let identities = table["identities"].as_table().unwrap();
    let names: Vec<_> = identities.keys().collect();
    let config = Gate::accepting(&names)
        .server("trusted_proxies", ["127.0.0.1"])
        .include(&guide.config)
        .chain(["signed-in", "member"])
        .write("https://api.imgwire.dev", folder.path());
    let run = |arguments: &[&str]| {
        let mut command = program(&[]);
        command.args(arguments);
        for secret in secrets {
            command.env(secret, SECRET);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{names:?}: {output:?}");
        text(&output.stdout) + &text(&output.stderr)
    };
    let config = config.to_str().unwrap();
    let checked = run(&["check", "--config", config]);
    assert!(checked.contains("member (workspace_member)"), "{checked}");
    for name in &names {
        assert!(
            !checked.contains(&format!("identities.{name}")),
            "{checked}"
        );
    }
    for (workspace, outcome) in [
        (workspace, "allow"),
        ("ws_9", "deny, 403 workspace_forbidden"),
    ] {
        let request = json!({
            "route": ROUTE,
            "subject": { "id": "user_1", "claims": claims },
            "workspace": workspace,
        });
        let path = folder.path().join("request.json");
        std::fs::write(&path, request.to_string()).unwrap();
        let path = path.to_str().unwrap();
        let explained = run(&["explain", "--config", config, "--request", path]);
        let outcome = format!("POST {ROUTE}: {outcome}\n");
        assert!(explained.starts_with(&outcome), "{names:?}: {explained}");
    }
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
    let authority = Authority::new();
    let (certificate, key) = authority.issue("gate", "DNS:gate");
    for file in ["docs/scaling.md", "docs/operations.md"] {
        for block in blocks(file, "toml") {
            let block = [
                ("/etc/gate/ca.pem", authority.certificate()),
                ("/etc/gate/gate.pem", &certificate),
                ("/run/secrets/gate.key", &key),
            ]
            .iter()
            .fold(block, |block, (path, here)| {
                block.replace(path, &here.display().to_string())
            });
            let config = Gate::accepting(["app"])
                .include(&block)
                .config("https://api.imgwire.dev", std::path::Path::new("data"));
            let environment = |name: &str| {
                let secret = match name {
                    "TEST_API_KEY" => SERVER_API_KEY,
                    "DATABASE_URL" => "postgres://gate:a-password@db/app?sslmode=require",
                    _ => SECRET,
                };
                Some(secret.to_owned())
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
