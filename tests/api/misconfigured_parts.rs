//! Misconfigurations of stores, queries, issuers and clocks that `imgwire-gate doctor` names, each with its remedy.

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    doctor_setup::{Setup, doctor, protected},
    helpers::{discovered_jwt, env, published_jwt, quota, rate_limit, workspace_member},
    postgres::Postgres,
    real_parts::free_port,
    redis_server::Redis,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

#[actix_web::test]
async fn clocks_are_off_by_ten_minutes() {
    let setup = Setup::new();
    let issuer = Service::start();
    let key = SigningKey::new("key-1", Algorithm::ES256);
    let date = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let keys = Reply::json(&set(&[&key])).header("date", &date);
    issuer.answer("/jwks", keys.clone());
    // A cache has had this response for ten minutes.
    issuer.answer("/cached", keys.header("age", "600"));
    let gate = |skew: i32| {
        setup
            .imgwire
            .change(|scenario| scenario.date_skew_seconds = skew);
        protected()
            .identity(
                "idp",
                published_jwt(["ES256"], &format!("{}/jwks", issuer.url)),
            )
            .identity(
                "cached",
                published_jwt(["ES256"], &format!("{}/cached", issuer.url)),
            )
    };
    let report = setup.probe(&gate(600)).await;
    let part = "imgwire.clock";
    let message = |direction| format!("seconds {direction} it");
    let remedy = "synchronize the clock of this machine";
    report.assert(part, "failed", &message("behind"), remedy);
    let part = "identities.idp.clock";
    report.assert(part, "failed", &message("ahead of"), remedy);
    assert_eq!(report.state("identities.cached.clock"), "ok");
    let report = setup.probe(&gate(-8)).await;
    report.assert("imgwire.clock", "warning", &message("ahead of"), remedy);
}

#[actix_web::test]
async fn store_has_no_rights() {
    let (Some(redis), Some(postgres)) = (Redis::here(), Postgres::here()) else {
        return;
    };
    let postgres = postgres.await;
    let setup = Setup::new();
    let postgres_sql = "create role reader login; \
                        create table members (user_id text, workspace_id text, role text)";
    postgres.run(postgres_sql).await;
    redis.run(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">secret",
        "~*",
        "+get",
        "+evalsha",
        "+script|load",
    ]);
    let url = redis.url().replace("redis://", "redis://reader@");
    let password = env("STORE_PASSWORD");
    let query = "select role, workspace_id from members where user_id = $1 and workspace_id = $2";
    let gate = protected()
        .store("cache", json!({ "url": url, "password": password }))
        .store("database", json!({ "url": postgres.url_of("reader") }))
        .store("app", json!({ "url": postgres.url_of("reader") }))
        .session("store", "cache")
        .policy("member", workspace_member().store("app").query(query))
        .policy("burst", rate_limit().per(["user"]).limit(3).store("cache"))
        .policy("daily", quota().per(["user"]).limit(3).store("database"));
    let url = setup.imgwire.url();
    let options = ["--json", "--probe"];
    let environment = [("STORE_PASSWORD", "secret")];
    let report = setup.run(&gate, url, &options, &environment).await;
    let remedy = "allow the user in `url` to read and write the keys `imgwire-gate:*`";
    report.assert("stores.cache", "failed", "permissions", remedy);
    let remedy = "grant the role in `url` what it needs: for quotas and records of uploads to create the schema";
    report.assert("stores.database", "failed", "permission denied", remedy);
    assert_eq!(report.state("stores.app"), "ok");
    let denied = "permission denied for table members";
    report.assert("policies.member", "failed", denied, "[policies.member]");

    let environment = [("STORE_PASSWORD", "another")];
    let report = setup.run(&gate, url, &options, &environment).await;
    let remedy = "correct `url` and `password` in [stores.cache]";
    report.assert("stores.cache", "failed", "", remedy);
    assert!(!report.stderr.contains("another"));
}

#[actix_web::test]
async fn membership_query_does_not_prepare() {
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let table = "create table members (user_id text, workspace_id text, role text, since date)";
    postgres.run(table).await;
    let setup = Setup::new();
    let path = setup.folder.path().join("app.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("create table members (user_id, workspace_id, role)")
        .unwrap();
    let sqlite = format!("sqlite:{}", path.display());
    let rest = "where user_id = $1 and workspace_id = $2";
    for (url, query, message) in [
        (
            postgres.url(),
            "select role, workspace_id from nobody",
            "relation \"nobody\" does not exist",
        ),
        (
            postgres.url(),
            "select since, workspace_id from members",
            "expected the role in the first column",
        ),
        (
            postgres.url(),
            "select role, since from members",
            "expected the workspace's id in the second",
        ),
        (
            sqlite.clone(),
            "select role, workspace_id from nobody",
            "no such table: nobody",
        ),
        (
            sqlite,
            "select rank, workspace_id from members",
            "no such column: rank",
        ),
    ] {
        let member = workspace_member()
            .store("app")
            .query(format!("{query} {rest}"));
        let gate = protected()
            .store("app", json!({ "url": url }))
            .policy("member", member);
        let report = setup.probe(&gate).await;
        report.assert(
            "policies.member",
            "failed",
            message,
            "correct `query` in [policies.member]",
        );
        assert_eq!(report.alarms(), ["policies.member"]);
    }

    // A database that fails is named as such, and the query is not tried.
    let member = workspace_member()
        .store("app")
        .query(format!("select role, workspace_id from members {rest}"));
    let nowhere = format!("postgres://gate@127.0.0.1:{}/app", free_port());
    let gate = protected()
        .store("app", json!({ "url": nowhere }))
        .policy("member", member);
    let report = setup.probe(&gate).await;
    report.assert(
        "stores.app",
        "failed",
        "cannot connect",
        "correct `url` and `password` in [stores.app]",
    );
    report.assert(
        "policies.member",
        "not tried",
        "needs stores.app",
        "fix stores.app first",
    );
}

#[actix_web::test]
async fn key_set_belongs_to_another_issuer() {
    let setup = Setup::new();
    let (ours, theirs) = (Service::start(), Service::start());
    let discovery = "/.well-known/openid-configuration";
    let key = Reply::json(&set(&[&SigningKey::new("key-1", Algorithm::ES256)]));
    for issuer in [&ours, &theirs] {
        let jwks = format!("{}/jwks", issuer.url);
        let document = json!({ "issuer": issuer.url, "jwks_uri": jwks });
        issuer.answer(discovery, Reply::json(&document));
    }
    ours.answer("/jwks", key.clone());
    theirs.answer("/jwks", Reply::json(&json!({ "keys": [] })));
    // The same keys under another address.
    ours.answer("/mirror", key);
    let other = Service::start();
    let document = json!({ "issuer": theirs.url, "jwks_uri": format!("{}/jwks", theirs.url) });
    other.answer(discovery, Reply::json(&document));
    let published =
        |path: &str| published_jwt(["ES256"], &format!("{}{path}", ours.url)).issuer(&ours.url);
    let foreign = Service::start();
    foreign.answer(
        "/jwks",
        Reply::json(&set(&[&SigningKey::new("key-9", Algorithm::ES256)])),
    );
    let moved = published_jwt(["ES256"], &format!("{}/jwks", foreign.url)).issuer(&ours.url);
    let gate = protected()
        .identity("own", published("/jwks"))
        .identity("mirror", published("/mirror"))
        .identity("moved", moved)
        .identity("discovered", discovered_jwt(["ES256"], &other.url))
        .identity("empty", discovered_jwt(["ES256"], &theirs.url));
    let report = setup.probe(&gate).await;
    for part in ["identities.own", "identities.mirror"] {
        assert_eq!(report.state(part), "ok", "{report:?}");
    }
    let remedy = format!("write jwks_url = \"{}/jwks\"", ours.url);
    report.assert(
        "identities.moved",
        "failed",
        "belong to another issuer",
        &remedy,
    );
    let message = format!("it names `{}`, and the config `{}`", theirs.url, other.url);
    report.assert(
        "identities.discovered",
        "failed",
        &message,
        "write `issuer` exactly",
    );
    report.assert(
        "identities.empty",
        "failed",
        "no usable key",
        "`algorithms`",
    );
}

#[actix_web::test]
async fn invalid_config_is_a_point_of_the_json_document() {
    let setup = Setup::new();
    let gate = protected().imgwire("timeout", "never");
    let url = setup.imgwire.url();
    let report = setup.run(&gate, url, &["--json"], &[]).await;
    assert_eq!(report.code, 2);
    assert_eq!(report.alarms(), ["config"]);
    let point = report.point("config");
    assert_eq!(point["state"], "failed");
    let message = point["message"].as_str().unwrap();
    assert!(message.contains("imgwire.timeout"), "{point}");
    assert_eq!(report.stderr.trim_end(), message.trim_end());
    assert!(point["remedy"].is_string(), "{point}");

    // Text for people goes to standard error only.
    let (code, stdout, stderr) = doctor(&gate, url, setup.folder.path(), &[], &[]).await;
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert_eq!(stderr, report.stderr);
}
