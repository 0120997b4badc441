//! URLs of PostgreSQL as providers and other tools write them, and URLs that are secrets.

use std::fs;

use serde_json::json;

use crate::{
    doctor_setup::{Setup, doctor},
    helpers::{self, Gate, TestApp, env, eventually},
    members::{MEMBERS, QUERY, ask_for, asking},
    pgbouncer::PgBouncer,
    postgres::Postgres,
    process::program,
    redis_server::Redis,
    scaling::{patient, quota, ready},
};

const PASSWORD: &str = "s3cret-Of-The-Url";

async fn status(gate: &TestApp) -> u16 {
    ask_for(gate, "user_1", "ws_1").await.status.as_u16()
}

/// A gate whose store has this URL from a variable.
fn by_variable(gate: Gate, store: &str, url: &str) -> Gate {
    gate.set(&format!("stores.{store}.url"), env("STORE_URL"))
        .secret("STORE_URL", url)
}

/// A server whose user `gate` has a password with special characters, and its URL.
async fn with_password() -> Option<(Postgres, String)> {
    let server = Postgres::here()?.await;
    server.run(MEMBERS).await;
    server
        .require_password("gate", &format!("{PASSWORD}@/?#%"))
        .await;
    server
        .run("grant select on members to gate; grant create on database postgres to gate")
        .await;
    let encoded = format!("{PASSWORD}%40%2F%3F%23%25");
    let url = format!(
        "postgresql://gate:{encoded}@127.0.0.1:{}/postgres",
        server.port()
    );
    Some((server, url))
}

#[actix_web::test]
async fn a_secret_holds_the_url_with_its_password() {
    let Some((_server, url)) = with_password().await else {
        return;
    };
    let lookup = by_variable(asking("sqlite:none.db", QUERY), "app", &url);
    let lookup = lookup.set("stores.app.timeout", "10s").start().await;
    assert_eq!(status(&lookup).await, 200);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    fs::write(&file, format!("{url}\n")).unwrap();
    let counting = patient(quota("sqlite:none.db", 1, "day"))
        .set("stores.shared.url", json!({ "file": file }))
        .start()
        .await;
    ready(&counting).await;
    assert_eq!(status(&counting).await, 200);
    assert_eq!(status(&counting).await, 429);
    let wrong = url.replace(PASSWORD, "another");
    let wrong = by_variable(asking("sqlite:none.db", QUERY), "app", &wrong);
    assert_eq!(status(&wrong.start().await).await, 500);
}

#[actix_web::test]
async fn a_secret_holds_the_url_of_every_kind_of_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("gate.db").display());
    let gate = by_variable(quota("sqlite:none.db", 1, "day"), "shared", &file);
    let gate = gate.start().await;
    assert_eq!(status(&gate).await, 200);
    assert!(folder.path().join("gate.db").exists());
    let Some(server) = Redis::here() else {
        return;
    };
    let password = format!(">{PASSWORD}");
    server.run(&["ACL", "SETUSER", "gate", "on", &password, "~*", "+@all"]);
    let url = format!("redis://gate:{PASSWORD}@127.0.0.1:{}", server.port());
    let gate = by_variable(quota("sqlite:none.db", 1, "day"), "shared", &url);
    let gate = patient(gate).start().await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
}

/// No command shows the password, whether the store works or not.
#[actix_web::test]
async fn no_output_shows_the_password_of_a_url() {
    let Some((_server, url)) = with_password().await else {
        return;
    };
    for url in [
        url.clone(),
        url.replace(PASSWORD, &format!("{PASSWORD}-wrong")),
        // Not percent-encoded, with an unknown parameter, and no URL at all.
        url.replace("%3F", "?"),
        format!("{url}?sslmod=require"),
        url.replace("postgresql://", "mysql://"),
        url.replace("postgresql://", ""),
        url.replace("127.0.0.1", "127.0.0.1:x"),
    ] {
        let setup = Setup::new();
        let daily = helpers::quota().per(["user"]).limit(3).store("shared");
        let gate = by_variable(crate::scaling::counting("sqlite:none.db"), "shared", &url)
            .policy("daily", daily)
            .chain(["signed-in", "daily"]);
        let variables = [("STORE_URL", url.as_str())];
        for options in [&["--json"][..], &[]] {
            let (imgwire, folder) = (setup.imgwire.url(), setup.folder.path());
            let (_, stdout, stderr) = doctor(&gate, imgwire, folder, options, &variables).await;
            let shown = format!("{stdout}{stderr}");
            assert!(!shown.contains(PASSWORD), "{shown}");
        }
        let config = gate.write(setup.imgwire.url(), setup.folder.path());
        let mut check = program(&[]);
        let check = check.arg("check").arg(&config).envs(variables).output();
        let check = format!("{:?}", check.unwrap());
        assert!(!check.contains(PASSWORD), "{check}");
        let text = gate.config(setup.imgwire.url(), setup.folder.path());
        let environment = |name: &str| match name {
            "STORE_URL" => Some(url.clone()),
            _ => Some(helpers::SESSION_KEY.to_owned()),
        };
        if let Ok(settings) = helpers::settings::load("gate.toml", &text, &environment) {
            assert!(!format!("{settings:?}").contains(PASSWORD));
        }
    }
}

#[actix_web::test]
async fn the_schema_of_a_url_has_the_tables_of_the_query() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server
        .run(&format!(
            "create schema shop; set search_path to shop; {MEMBERS}"
        ))
        .await;
    let Some(pooler) = PgBouncer::before(&server, "transaction", 1) else {
        return;
    };
    pooler.connect().await;
    for base in [server.url(), pooler.url()] {
        for (parameters, expected) in [
            ("", 500),
            (
                "?schema=shop&pgbouncer=true&connection_limit=1&pool_timeout=20",
                200,
            ),
            ("?currentSchema=public,shop&statement_cache_size=0", 200),
            ("?schema=%22shop%22%3B%20drop%20table%20shop.members", 500),
        ] {
            let gate = asking(&format!("{base}{parameters}"), QUERY)
                .set("stores.app.timeout", "10s")
                .start()
                .await;
            assert_eq!(status(&gate).await, expected, "{base}{parameters}");
        }
    }
    let direct = format!("{}?options=-c%20search_path%3Dshop", server.url());
    let gate = asking(&direct, QUERY).start().await;
    assert_eq!(status(&gate).await, 200);
    let members = server.number("select count(*) from shop.members");
    assert_eq!(members.await, 5);
}

#[actix_web::test]
async fn the_application_name_and_the_role_of_a_url_are_used() {
    let Some(primary) = Postgres::here() else {
        return;
    };
    let primary = primary.await;
    primary.run(MEMBERS).await;
    let replica = primary.replica().await;
    let hosts = |first: u16, second: u16| format!("127.0.0.1:{first},127.0.0.1:{second}");
    for (role, at) in [
        ("standby", &replica),
        ("read-only", &replica),
        ("primary", &primary),
        ("read-write", &primary),
    ] {
        for order in [
            hosts(primary.port(), replica.port()),
            hosts(replica.port(), primary.port()),
        ] {
            let url = format!(
                "postgres://postgres@{order}/postgres?target_session_attrs={role}&application_name=shop-{role}"
            );
            let gate = asking(&url, QUERY)
                .set("stores.app.timeout", "10s")
                .start()
                .await;
            eventually("the replica", async || status(&gate).await == 200).await;
            let named = format!(
                "select count(*) from pg_stat_activity where application_name = 'shop-{role}'"
            );
            assert!(at.number(&named).await > 0, "{role}");
        }
    }
    // A database that is read-only by its settings takes no quotas.
    primary
        .run("alter database postgres set default_transaction_read_only to on")
        .await;
    let gate = patient(quota(&primary.url(), 3, "day")).start().await;
    assert_eq!(status(&gate).await, 500);
}
