//! The documents' configs. Guides with a provider or an app have tests of their own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    book::{markdown_files, root},
    certificates::Authority,
    helpers::{
        Application, Gate, ROUTE, SECRET, SERVER_API_KEY, SESSION_KEY, rate_limit, settings,
    },
    process::{program, text},
    real_parts::blocks,
};

/// The block of the documents about identities that has this table.
pub(crate) fn guide(table: &str) -> String {
    let header = format!("[{table}]");
    let pages = markdown_files(Path::new("docs/providers"));
    let pages = ["docs/identities.md".into()].into_iter().chain(pages);
    let mut blocks = pages.flat_map(|page: PathBuf| blocks(page.to_str().unwrap(), "toml"));
    blocks.find(|block| block.contains(&header)).unwrap()
}

/// The guide to a provider: its config, and what a token or an answer of the provider says.
pub(crate) struct Guide {
    pub(crate) config: String,
    pub(crate) payload: String,
}

/// The guide with this title.
pub(crate) fn section(title: &str) -> Guide {
    let mut pages = markdown_files(Path::new("docs/providers")).into_iter();
    let is_it = |page: &PathBuf| {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        text.starts_with(&format!("# {title}\n"))
    };
    let page = pages.find(is_it).unwrap();
    let block = |language: &str| {
        let [block] = &blocks(page.to_str().unwrap(), language)[..] else {
            panic!("{title}: one block of {language}")
        };
        block.clone()
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
            .config("https://api.imgwire.dev", Path::new("/nowhere"));
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

#[test]
fn check_warns_of_the_guides_cookie_with_a_domain() {
    let blocks = blocks("docs/identities.md", "toml");
    let cookie = blocks.iter().find(|block| block.contains("domain = "));
    let config = Gate::accepting(["app"])
        .include(cookie.unwrap())
        .config("https://api.imgwire.dev", Path::new("/nowhere"));
    let secret = SESSION_KEY.to_owned();
    let settings = settings::load("gate.toml", &config, &|name| {
        let is_key = name == "TEST_API_KEY";
        Some(if is_key {
            SERVER_API_KEY.to_owned()
        } else {
            secret.clone()
        })
    });
    let settings = settings.unwrap_or_else(|faults| panic!("{faults}"));
    for key in ["domain", "path"] {
        assert!(
            settings.warnings.to_string().contains(&format!("`{key}`")),
            "{}",
            settings.warnings
        );
    }
}

/// All configs of `docs/policies.md` in one, with a route for its requests and cases.
fn config_of_the_policies(folder: &Path) -> String {
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
                .config("https://api.imgwire.dev", Path::new("data"));
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
