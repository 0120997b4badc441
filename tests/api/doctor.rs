//! `imgwire-gate doctor`: a good set-up raises no alarm, and nothing that counts is consumed.

use std::{path::Path, sync::Arc};

use actix_web::web;
use jsonwebtoken::Algorithm;
use policies::SystemClock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    helpers::{
        CLIENT_KEY, CorsOrigin, ENVIRONMENT, Emulator, Endpoint, Gate, SECRET, SERVER_API_KEY,
        SESSION_KEY, cli, discovered_jwt, introspection, published_jwt, quota, rate_limit,
        remote_decision, remote_session, settings, signed_in, workspace_member,
    },
    postgres::Postgres,
    process::{program, text},
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const QUERY: &str =
    "select role, workspace_id from members where user_id = $1 and workspace_id = $2";

/// An Imgwire, and the folder of a config.
pub(crate) struct Setup {
    pub(crate) imgwire: Emulator,
    pub(crate) folder: TempDir,
}

/// What the command printed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) code: i32,
    pub(crate) points: Vec<Value>,
    pub(crate) stderr: String,
}

impl Report {
    /// The point on a part.
    pub(crate) fn point(&self, part: &str) -> &Value {
        let mut points = self.points.iter();
        let point = points.find(|point| point["part"] == part);
        point.unwrap_or_else(|| panic!("no point on {part}: {self:?}"))
    }

    pub(crate) fn state(&self, part: &str) -> &str {
        self.point(part)["state"].as_str().unwrap()
    }

    /// The state of a point, whose message and remedy must contain these texts.
    #[track_caller]
    pub(crate) fn assert(&self, part: &str, state: &str, message: &str, remedy: &str) {
        let point = self.point(part);
        let contains = |key: &str, text: &str| point[key].as_str().unwrap().contains(text);
        assert_eq!(point["state"], state, "{point}");
        assert!(contains("message", message), "{point}");
        assert!(contains("remedy", remedy), "{point}");
        assert_eq!(self.code, i32::from(self.has_failed()), "{self:?}");
    }

    fn has_failed(&self) -> bool {
        self.points.iter().any(|point| point["state"] == "failed")
    }

    /// The parts that are not ok.
    pub(crate) fn alarms(&self) -> Vec<&str> {
        let points = self.points.iter();
        let alarms = points.filter(|point| point["state"] != "ok");
        alarms
            .map(|point| point["part"].as_str().unwrap())
            .collect()
    }
}

/// A gate whose pages upload with a Client Key.
pub(crate) fn protected() -> Gate {
    Gate::standard()
        .imgwire("client_key", CLIENT_KEY)
        .server("allowed_origins", ["https://*.example.com"])
}

impl Setup {
    /// An Imgwire that protects the gate.
    pub(crate) fn new() -> Self {
        let imgwire = Emulator::start().unwrap();
        imgwire.change(|scenario| scenario.cors_origins = vec![CorsOrigin::new("*.example.com")]);
        Self {
            imgwire,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs the command with `--probe`.
    pub(crate) async fn probe(&self, gate: &Gate) -> Report {
        self.run(gate, self.imgwire.url(), &["--probe", "--json"], &[])
            .await
    }

    pub(crate) async fn run(
        &self,
        gate: &Gate,
        base_url: &str,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Report {
        let (code, stdout, stderr) =
            doctor(gate, base_url, self.folder.path(), options, environment).await;
        let report: Value = serde_json::from_str(&stdout).unwrap_or_default();
        let points = report["points"].as_array().cloned().unwrap_or_default();
        let report_is_ok = report["ok"] == true;
        let report = Report {
            code,
            points,
            stderr,
        };
        assert_eq!(report_is_ok, code == 0, "{report:?}");
        for secret in [SERVER_API_KEY, SECRET, SESSION_KEY, CLIENT_KEY] {
            let shown = format!("{stdout}{}", report.stderr);
            assert!(!shown.contains(secret), "{shown}");
        }
        report
    }
}

/// The exit code, and what the command prints.
pub(crate) async fn doctor(
    gate: &Gate,
    base_url: &str,
    folder: &Path,
    options: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    let mut command = program(&[]);
    command.arg("doctor").args(options);
    command.arg(gate.write(base_url, folder));
    command.envs(environment.iter().copied());
    // The services that it asks run on this thread.
    let output = web::block(move || command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), stdout, stderr)
}

/// An issuer, an app and a service that decides.
fn services() -> Service {
    let service = Service::start();
    let keys = [
        SigningKey::new("key-1", Algorithm::ES256),
        SigningKey::new("key-2", Algorithm::RS256),
    ];
    let issuer = &service.url;
    let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") });
    let document = Reply::json(&document);
    service.answer("/.well-known/openid-configuration", document);
    service.answer("/jwks", Reply::json(&set(&[&keys[0], &keys[1]])));
    let inactive = json!({ "active": false });
    service.answer("/introspect", Reply::json(&inactive));
    service.answer("/session", Reply::json(&json!({ "user": null })));
    service.answer("/decide", Reply::status(403));
    let member = "/ws/imgwire-gate-doctor/imgwire-gate-doctor";
    service.answer(member, Reply::status(404));
    service
}

/// A gate that uses everything that doctor tries.
fn everything(redis: &Redis, postgres: &Postgres, service: &Service) -> Gate {
    let url = &service.url;
    let store = |url: &str| json!({ "url": url, "timeout": "5s" });
    let session = remote_session(&format!("{url}/session"), ["cookie:sid"], "/user/id");
    let accept = ["app", "idp", "published", "opaque", "site"];
    let member = workspace_member().store("database").query(QUERY);
    let by_app = workspace_member().url(format!("{url}/ws/{{workspace}}/{{user}}"));
    let chain = [
        "signed-in",
        "member",
        "burst",
        "daily",
        "monthly",
        "moderation",
    ];
    protected()
        .store("cache", store(&redis.url()))
        .store("database", store(&postgres.url()))
        .store("unused", json!({ "url": "redis://127.0.0.1:1" }))
        .session("store", "cache")
        .identity("idp", discovered_jwt(["ES256"], url))
        .identity(
            "published",
            published_jwt(["RS256"], &format!("{url}/jwks")).issuer(url),
        )
        .identity("opaque", introspection(&format!("{url}/introspect")))
        .identity("site", session)
        .policy("signed-in", signed_in(accept))
        .policy("member", member)
        .policy("by-app", by_app)
        .policy("burst", rate_limit().per(["user"]).limit(30).store("cache"))
        .policy(
            "daily",
            quota().per(["workspace"]).limit(500).store("database"),
        )
        .policy(
            "monthly",
            quota().per(["workspace"]).limit(500).window("month"),
        )
        .policy("moderation", remote_decision(&format!("{url}/decide")))
        .chain(chain)
        .route("/by-app", ["signed-in", "by-app"])
}

async fn with_members() -> Option<(Redis, Postgres)> {
    let (redis, postgres) = (Redis::here()?, Postgres::here()?);
    let postgres = postgres.await;
    let members = "create table members (user_id text, workspace_id uuid, role text)";
    postgres.run(members).await;
    Some((redis, postgres))
}

#[actix_web::test]
async fn good_setup_raises_no_alarm_and_every_part_is_tried() {
    let Some((redis, postgres)) = with_members().await else {
        return;
    };
    let service = services();
    let setup = Setup::new();
    let gate = everything(&redis, &postgres, &service).without("stores.unused");
    let report = setup.probe(&gate).await;
    assert_eq!(report.alarms(), [""; 0], "{report:?}");
    assert_eq!(report.code, 0);
    let parts = report
        .points
        .iter()
        .map(|point| point["part"].as_str().unwrap());
    assert_eq!(
        parts.collect::<Vec<_>>(),
        [
            "stores.cache",
            "stores.cache.clock",
            "stores.database",
            "stores.database.clock",
            "stores.main",
            "policies.by-app",
            "policies.member",
            "policies.moderation",
            "identities.idp",
            "identities.idp.clock",
            "identities.opaque",
            "identities.opaque.clock",
            "identities.published",
            "identities.published.clock",
            "identities.site",
            "imgwire.base_url",
            "imgwire.clock",
            "imgwire.api_key",
            "imgwire.billing",
            "imgwire.cors_origins",
            "imgwire.client_key",
        ]
    );
    for (part, message) in [
        ("stores.cache", "works for rate limits, sessions"),
        ("stores.database", "works for quotas, memberships"),
        ("policies.member", "role (text), workspace_id (uuid)"),
        ("policies.moderation", "denies it"),
        ("identities.idp", "one usable key; unusable: key-2"),
        (
            "imgwire.cors_origins",
            "1 set; they cover all `allowed_origins` (1)",
        ),
    ] {
        let found = report.point(part)["message"].as_str().unwrap();
        assert!(found.contains(message), "{found}");
    }

    // Nothing that counts was consumed, and nothing is left.
    assert_eq!(setup.imgwire.created(), 1);
    assert_eq!(setup.imgwire.images(ENVIRONMENT).len(), 0);
    assert!(!setup.folder.path().join("gate.db").exists());
    assert_eq!(
        postgres
            .number("select count(*) from imgwire_gate.quota")
            .await,
        0
    );
    assert_eq!(redis.run(&["DBSIZE"]).trim(), "0");

    // Text for people has one line for each point, and a summary.
    let folder = setup.folder.path();
    let (code, stdout, _) = doctor(&gate, setup.imgwire.url(), folder, &["--probe"], &[]).await;
    assert_eq!(code, 0);
    assert_eq!(stdout.lines().count(), 22, "{stdout}");
    assert!(
        stdout.starts_with("ok         stores.cache                works for"),
        "{stdout}"
    );
    assert!(stdout.ends_with("\n21 ok\n"), "{stdout}");
}

#[actix_web::test]
async fn a_hundred_runs_against_a_good_setup_raise_no_alarm() {
    let Some((redis, postgres)) = with_members().await else {
        return;
    };
    let service = services();
    let setup = Setup::new();
    let gate = everything(&redis, &postgres, &service).without("stores.unused");
    let config = gate.config(setup.imgwire.url(), setup.folder.path());
    let secret = |name: &str| match name {
        "TEST_API_KEY" => Some(SERVER_API_KEY.to_owned()),
        "TEST_SECRET" => Some(SECRET.to_owned()),
        _ => Some(SESSION_KEY.to_owned()),
    };
    let settings = settings::load("gate.toml", &config, &secret).unwrap();
    let clock = Arc::new(SystemClock::new()) as _;
    for run in 0..100 {
        // From the fiftieth run on, the environment has an image.
        if run == 50 {
            upload(&setup.imgwire).await;
        }
        let points = cli::diagnose(&settings, true, &clock).await.unwrap();
        assert_eq!(points.len(), 21);
        for point in points {
            assert_eq!(point.state.as_str(), "ok", "run {run}: {point:?}");
        }
    }
    assert_eq!(setup.imgwire.images(ENVIRONMENT).len(), 1);
}

/// Creates an image with the Server API Key.
pub(crate) async fn upload(imgwire: &Emulator) {
    let url = format!("{}/api/v1/images/standard_upload", imgwire.url());
    let request = awc::Client::default().post(url).bearer_auth(SERVER_API_KEY);
    let response = request.send_json(&json!({ "file_name": "me.png" })).await;
    assert_eq!(response.unwrap().status(), 200);
}

#[actix_web::test]
async fn a_sqlite_store_that_a_running_gate_uses_is_ok() {
    let gate = Gate::standard().start().await;
    gate.ask_as(&crate::helpers::Token::of("user_1"))
        .await
        .assert_token();
    let setup = Setup {
        folder: gate.folder,
        imgwire: Emulator::start().unwrap(),
    };
    let report = setup.probe(&Gate::standard()).await;
    assert_eq!(report.state("stores.main"), "ok", "{report:?}");
}

#[actix_web::test]
async fn a_database_of_the_app_without_the_gates_tables_is_ok() {
    let setup = Setup::new();
    let path = setup.folder.path().join("gate.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("create table members (user_id, workspace_id, role)")
        .unwrap();
    let gate = protected().policy("member", workspace_member().store("main").query(QUERY));
    let report = setup.probe(&gate).await;
    assert_eq!(report.alarms(), [""; 0], "{report:?}");
    // It was not changed.
    let tables = "select count(*) from sqlite_schema";
    let tables = app.query_row(tables, [], |row| row.get::<_, i64>(0));
    assert_eq!(tables.unwrap(), 1);
}

#[actix_web::test]
async fn services_that_accept_everything_or_fail_are_named() {
    let service = services();
    let setup = Setup::new();
    let url = &service.url;
    service.answer("/introspect", Reply::json(&json!({ "active": true })));
    service.answer("/session", Reply::json(&json!({ "user": { "id": 7 } })));
    service.answer("/decide", Reply::status(302));
    let member = "/ws/imgwire-gate-doctor/imgwire-gate-doctor";
    service.answer(
        member,
        Reply::json(&json!({ "role": "owner", "workspace": "x" })),
    );
    let session = |path: &str| remote_session(&format!("{url}{path}"), ["cookie:sid"], "/user/id");
    let gate = protected()
        .identity("opaque", introspection(&format!("{url}/introspect")))
        .identity("lost", introspection(&format!("{url}/nowhere")))
        .identity("site", session("/session"))
        .identity("page", session("/decide"))
        .policy(
            "member",
            workspace_member().url(format!("{url}/ws/{{workspace}}/{{user}}")),
        )
        .policy("moderation", remote_decision(&format!("{url}/decide")))
        .policy(
            "signed-in",
            signed_in(["app", "opaque", "lost", "site", "page"]),
        );
    let report = setup.probe(&gate).await;
    for (part, message, remedy) in [
        (
            "identities.opaque",
            "a made-up token is active",
            "introspection endpoint",
        ),
        ("identities.lost", "unexpected status 404", "correct `url`"),
        (
            "identities.site",
            "belongs to a user",
            "correct `url` and `subject`",
        ),
        ("identities.page", "unexpected status 302", "correct `url`"),
        (
            "policies.member",
            "an unknown user is a member",
            "[policies.member]",
        ),
        (
            "policies.moderation",
            "unexpected status 302",
            "[policies.moderation]",
        ),
    ] {
        report.assert(part, "failed", message, remedy);
    }
    service.answer("/introspect", Reply::status(401));
    let report = setup.probe(&gate).await;
    report.assert(
        "identities.opaque",
        "failed",
        "unexpected status 401",
        "`client_secret`",
    );
}

#[actix_web::test]
async fn without_a_client_key_or_a_probe_the_point_is_not_tried() {
    let setup = Setup::new();
    let gate = protected().without("imgwire.client_key");
    let report = setup.probe(&gate).await;
    let remedy = "set `client_key` in [imgwire]";
    report.assert("imgwire.client_key", "not tried", "unknown without", remedy);
    let url = setup.imgwire.url();
    let report = setup.run(&protected(), url, &["--json"], &[]).await;
    let remedy = "imgwire-gate doctor --probe";
    report.assert("imgwire.client_key", "not tried", "was not tried", remedy);
    assert_eq!(setup.imgwire.asked_at(Endpoint::Upload), 0);
}
