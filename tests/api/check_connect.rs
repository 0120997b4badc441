//! `imgwire-gate check --connect`: what a config leads to is tried, and nothing is consumed.

use std::{fs, path::Path};

use actix_web::web;
use imgwire_gate::sandbox::emulator::Emulator;
use jsonwebtoken::Algorithm;

use crate::{
    helpers::Recipe,
    postgres::Postgres,
    process::{run, text},
    real_parts::free_port,
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// What it exits with and says of each part.
async fn connect(recipe: &Recipe, base_url: &str, folder: &Path) -> (i32, Vec<String>) {
    let path = folder.join("gate.toml");
    fs::write(&path, recipe.config(base_url, folder)).unwrap();
    // The services that it asks are on this thread.
    let checking = move || run(&["check", "--connect", "--config", path.to_str().unwrap()]);
    let output = web::block(checking).await.unwrap();
    let lines = text(&output.stdout);
    // Those that draw the chain are indented.
    let lines = lines
        .lines()
        .filter(|line| line.contains(": ") && !line.starts_with(' '));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{}", text(&output.stderr));
    (output.status.code().unwrap(), lines)
}

fn using(redis: &str, postgres: &str, query: &str, jwks: &str) -> Recipe {
    Recipe {
        more: format!(
            r#"
            [stores.cache]
            url = "{redis}"
            timeout = "1s"
            [stores.database]
            url = "{postgres}"
            timeout = "1s"
            [stores.unused]
            url = "redis://127.0.0.1:1"
            [identities.idp]
            kind = "jwt"
            algorithms = ["ES256"]
            jwks_url = "{jwks}"
            audience = ["imgwire-gate"]
            "#
        ),
        policies: format!(
            r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app", "idp"]
            [policies.member]
            kind = "workspace_member"
            store = "database"
            query = "{query}"
            [policies.burst]
            kind = "rate_limit"
            per = ["user"]
            limit = 30
            period = "1m"
            store = "cache"
            [policies.daily]
            kind = "quota"
            per = ["workspace"]
            limit = 500
            window = "day"
            store = "database"
            [policies.monthly]
            kind = "quota"
            per = ["workspace"]
            limit = 500
            window = "month"
            store = "main"
            "#
        ),
        chain: r#"["signed-in", "member", "burst", "daily", "monthly"]"#.to_owned(),
        ..Recipe::default()
    }
}

#[actix_web::test]
async fn everything_that_a_config_leads_to_is_tried() {
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
    let recipe = using(&redis.url(), &postgres.url(), query, &jwks);
    let (code, lines) = connect(&recipe, imgwire.url(), folder.path()).await;
    assert_eq!(
        lines,
        [
            "stores.main: ok",
            "stores.cache: ok",
            "stores.database: ok",
            "identities.idp: ok, one key",
            "imgwire: ok",
        ]
    );
    assert_eq!(code, 0);
    // Nothing was asked of Imgwire but how it is, and no file was made.
    assert_eq!(imgwire.asked(), 0);
    assert!(!folder.path().join("gate.db").exists());

    // What does not work is named, with the reason, and all of it in one go.
    let base_url = format!("http://127.0.0.1:{}", free_port());
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let query = "select role, workspace_id from nobody where user_id = $1 and workspace_id = $2";
    let jwks = format!("{}/nothing", issuer.url);
    let recipe = using(&nowhere, &postgres.url(), query, &jwks);
    fs::write(
        folder.path().join("gate.db"),
        "no database, but some text that is long enough",
    )
    .unwrap();
    let (code, lines) = connect(&recipe, &base_url, folder.path()).await;
    assert_eq!(code, 1);
    for (line, expected) in lines.iter().zip([
        "stores.main: FAILED: file is not a database",
        "stores.cache: FAILED: ",
        "stores.database: FAILED: policies.member.query: the query fails: relation \"nobody\" does not exist",
        "identities.idp: FAILED: ",
        "imgwire: FAILED: ",
    ]) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(lines.len(), 5);
}

#[actix_web::test]
async fn a_file_of_counters_may_be_in_use_by_the_gate_that_runs() {
    let gate = Recipe::default().start().await;
    let recipe = Recipe::default();
    let (code, lines) = connect(&recipe, gate.imgwire.url(), gate.folder.path()).await;
    assert_eq!(
        (code, lines),
        (
            0,
            vec!["stores.main: ok".to_owned(), "imgwire: ok".to_owned()]
        )
    );
}
