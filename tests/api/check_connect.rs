//! `imgwire-gate check --connect`: it tries the services of a config and consumes nothing.

use std::{fs, path::Path};

use actix_web::web;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, published_jwt, quota, rate_limit, signed_in, workspace_member},
    postgres::Postgres,
    process::{run, text},
    real_parts::free_port,
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// The exit code, and the line about each part.
async fn connect(gate: &Gate, base_url: &str, folder: &Path) -> (i32, Vec<String>) {
    let path = gate.write(base_url, folder);
    // The services that it asks run on this thread.
    let checking = move || run(&["check", "--connect", "--config", path.to_str().unwrap()]);
    let output = web::block(checking).await.unwrap();
    let lines = text(&output.stdout);
    // The lines of the chain are indented.
    let lines = lines
        .lines()
        .filter(|line| line.contains(": ") && !line.starts_with(' '));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{}", text(&output.stderr));
    (output.status.code().unwrap(), lines)
}

fn using(redis: &str, postgres: &str, query: &str, jwks: &str) -> Gate {
    let member = workspace_member().store("database").query(query);
    let burst = rate_limit().per(["user"]).limit(30).store("cache");
    let quota = || quota().per(["workspace"]).limit(500);
    Gate::bare()
        .store("cache", json!({ "url": redis, "timeout": "1s" }))
        .store("database", json!({ "url": postgres, "timeout": "1s" }))
        .store("unused", json!({ "url": "redis://127.0.0.1:1" }))
        .identity("idp", published_jwt(["ES256"], jwks))
        .policy("signed-in", signed_in(["app", "idp"]))
        .policy("member", member)
        .policy("burst", burst)
        .policy("daily", quota().store("database"))
        .policy("monthly", quota().window("month"))
        .chain(["signed-in", "member", "burst", "daily", "monthly"])
}

#[actix_web::test]
async fn check_connect_tries_every_service_that_the_config_names() {
    let Some(redis) = Redis::here() else { return };
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    postgres
        .run("create table members (user_id text, workspace_id text, role text)")
        .await;
    let issuer = Service::start();
    let key = SigningKey::new("key-1", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&set(&[&key])));
    let imgwire = Emulator::start().unwrap();
    let query = "select role, workspace_id from members where user_id = $1 and workspace_id = $2";
    let folder = tempfile::tempdir().unwrap();
    let jwks = format!("{}/jwks", issuer.url);
    let builder = using(&redis.url(), &postgres.url(), query, &jwks);
    let (code, lines) = connect(&builder, imgwire.url(), folder.path()).await;
    assert_eq!(
        lines,
        [
            "stores.cache: ok",
            "stores.database: ok",
            "stores.main: ok",
            "identities.idp: ok, one key",
            "imgwire: ok",
        ]
    );
    assert_eq!(code, 0);
    // Imgwire got no request for a token, and no file was created.
    assert_eq!(imgwire.asked(), 0);
    assert!(!folder.path().join("gate.db").exists());

    // Every failure is reported, with its reason.
    let base_url = format!("http://127.0.0.1:{}", free_port());
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let query = "select role, workspace_id from nobody where user_id = $1 and workspace_id = $2";
    let jwks = format!("{}/nothing", issuer.url);
    let builder = using(&nowhere, &postgres.url(), query, &jwks);
    fs::write(
        folder.path().join("gate.db"),
        "no database, but some text that is long enough",
    )
    .unwrap();
    let (code, lines) = connect(&builder, &base_url, folder.path()).await;
    assert_eq!(code, 1);
    for (line, expected) in lines.iter().zip([
        "stores.cache: FAILED: ",
        "stores.database: FAILED: policies.member.query: the query fails: relation \"nobody\" does not exist",
        "stores.main: FAILED: file is not a database",
        "identities.idp: FAILED: ",
        "imgwire: FAILED: ",
    ]) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(lines.len(), 5);
}

#[actix_web::test]
async fn check_connect_can_open_a_sqlite_store_that_a_running_gate_uses() {
    let gate = Gate::standard().start().await;
    let builder = Gate::standard();
    let (code, lines) = connect(&builder, gate.imgwire.url(), gate.folder.path()).await;
    assert_eq!(
        (code, lines),
        (
            0,
            vec!["stores.main: ok".to_owned(), "imgwire: ok".to_owned()]
        )
    );
}
