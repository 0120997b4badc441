//! `imgwire-gate doctor`: a good set-up raises no alarm, and nothing that counts is consumed.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use policies::SystemClock;
use serde_json::json;

use crate::{
    doctor_setup::{Setup, doctor, protected, upload},
    helpers::{
        ENVIRONMENT, Emulator, Endpoint, Gate, SECRET, SERVER_API_KEY, SESSION_KEY, Token, cli,
        discovered_jwt, eventually, introspection, published_jwt, quota, rate_limit,
        remote_decision, remote_session, settings, signed_in, workspace_member,
    },
    postgres::Postgres,
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const QUERY: &str =
    "select role, workspace_id from members where user_id = $1 and workspace_id = $2";

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
        (
            "policies.moderation",
            "unknown user, and denies the request",
        ),
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
    // The key of a probe expires after a millisecond.
    eventually("an empty Redis", async || {
        redis.run(&["DBSIZE"]).trim() == "0"
    })
    .await;

    let asked = service.seen("/decide").remove(0);
    assert!(asked.body.contains("imgwire-gate-doctor"), "{asked:?}");

    // A store that nothing uses is not tried, and a warning of the config is a point.
    let warned = everything(&redis, &postgres, &service).server("trusted_proxies", ["0.0.0.0/0"]);
    let report = setup.probe(&warned).await;
    assert_eq!(report.alarms(), ["config", "config"]);
    let message = |index: usize| report.points[index]["message"].as_str().unwrap();
    assert!(message(0).contains("server.trusted_proxies"), "{report:?}");
    assert!(
        message(1).contains("stores.unused: nothing uses it"),
        "{report:?}"
    );

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

#[actix_web::test]
async fn a_sqlite_store_that_a_running_gate_uses_is_ok() {
    let gate = Gate::standard().start().await;
    gate.ask_as(&Token::of("user_1")).await.assert_token();
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
    let session =
        |path: &str, cookie: &str| remote_session(&format!("{url}{path}"), [cookie], "/user/id");
    let gate = protected()
        .identity("opaque", introspection(&format!("{url}/introspect")))
        .identity(
            "lost",
            introspection(&format!("{url}/nowhere")).from(["cookie:opaque"]),
        )
        .identity("site", session("/session", "cookie:sid"))
        .identity("page", session("/decide", "cookie:page"))
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
