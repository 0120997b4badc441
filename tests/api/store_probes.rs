//! Probes test what the gate needs: a store that lacks a right goes down once, with the reason, until it has the right.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::{
    helpers::{self, Gate, SECRET, env, eventually, rate_limit},
    members::{MEMBERS, asking, sqlite},
    postgres::Postgres,
    redis_server::Redis,
    scaling::{limit, patient, quota, ready},
    watched::Watched,
};

#[actix_web::test]
async fn postgresql_without_the_right_to_insert_is_down_until_it_is_granted() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let gate = patient(quota(&server.url(), 10, "day")).start().await;
    ready(&gate).await;
    server
        .run(
            "create role counter login;
             grant usage on schema imgwire_gate to counter;
             grant select on imgwire_gate.migration to counter;
             grant select, update on imgwire_gate.quota to counter;",
        )
        .await;
    let url = server.url_of("counter");
    let gate = Watched::start(&patient(quota(&url, 1000, "day"))).await;
    gate.stays_down("permission denied for table quota").await;
    server
        .run("grant insert on imgwire_gate.quota to counter")
        .await;
    gate.comes_back().await;
    // The probe leaves no counter behind.
    let kept = "select count(*) from imgwire_gate.quota where policy <> 'shared-quota'";
    assert_eq!(server.number(kept).await, 0);
}

#[actix_web::test]
async fn postgresql_goes_down_when_a_right_is_revoked() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    for statement in crate::real_parts::blocks("docs/scaling.md", "sql") {
        server.run(&statement).await;
    }
    let url = server.url_of("gate");
    let gate = Watched::start(&patient(quota(&url, 1000, "day"))).await;
    eventually("a token", async || gate.ask().await == 200).await;
    server
        .run("revoke update on imgwire_gate.quota from gate")
        .await;
    assert_eq!(gate.ask().await, 500);
    gate.stays_down("permission denied for table quota").await;
    server
        .run("grant update on imgwire_gate.quota to gate")
        .await;
    gate.comes_back().await;
}

/// A Redis user with these rights, whose password is a secret of the tests' gates.
fn with_user(server: &Redis, rights: &[&str]) -> String {
    let password = format!(">{SECRET}");
    let user = [
        "ACL",
        "SETUSER",
        "gate",
        "reset",
        "on",
        &password,
        "~imgwire-gate:*",
    ];
    assert_eq!(server.run(&[&user, rights].concat()), "OK");
    format!("redis://gate@127.0.0.1:{}", server.port())
}

pub(crate) fn with_password(gate: Gate) -> Gate {
    gate.set("stores.shared.password", env("TEST_SECRET"))
}

const ALL_RIGHTS: [&str; 8] = [
    "+get",
    "+set",
    "+del",
    "+pexpire",
    "+time",
    "+evalsha",
    "+script|load",
    "+select",
];

#[actix_web::test]
async fn redis_without_the_right_to_run_scripts_is_down_until_it_is_granted() {
    let Some(server) = Redis::here() else { return };
    let rights = ["+get", "+set", "+del", "+pexpire", "+time", "+select"];
    let url = with_user(&server, &rights);
    let gate = Watched::start(&patient(with_password(quota(&url, 1000, "day")))).await;
    gate.stays_down("evalsha").await;
    server.run(&["ACL", "SETUSER", "gate", "+evalsha", "+script|load"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn redis_without_the_right_to_write_is_down_until_it_is_granted() {
    let Some(server) = Redis::here() else { return };
    let rights = ["+get", "+time", "+evalsha", "+script|load", "+select"];
    let url = with_user(&server, &rights);
    let settings = rate_limit().limit(1000).period("1s");
    let gate = Watched::start(&patient(with_password(limit(&url, settings)))).await;
    gate.stays_down("can't run this command").await;
    server.run(&["ACL", "SETUSER", "gate", "+set"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_full_redis_is_down_until_there_is_room() {
    let Some(server) = Redis::here() else { return };
    let gate = Watched::start(&patient(quota(&server.url(), 1000, "day"))).await;
    eventually("a token", async || gate.ask().await == 200).await;
    server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(gate.ask().await, 500);
    gate.stays_down("OOM").await;
    server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn redis_that_keeps_only_sessions_needs_no_right_to_run_scripts() {
    let Some(server) = Redis::here() else { return };
    let url = with_user(&server, &["+get", "+set", "+del", "+pexpire", "+select"]);
    let sessions = || {
        let cookie = json!({ "name": "imgwire_gate", "secure": false });
        let gate = Gate::standard()
            .store("shared", json!({ "url": url }))
            .session("store", "shared")
            .session("cookie", cookie);
        with_password(gate)
    };
    let gate = sessions().start().await;
    ready(&gate).await;
    // A policy that a reload adds needs the right.
    let counting = sessions()
        .policy(
            "shared",
            helpers::quota().per([""; 0]).limit(10).store("shared"),
        )
        .chain(["signed-in", "shared"]);
    gate.reload(&counting).unwrap();
    eventually("the news", async || {
        gate.manage("/readyz").await.json["failing"][0] == "stores.shared"
    })
    .await;
    with_user(&server, &ALL_RIGHTS);
    ready(&gate).await;
}

#[actix_web::test]
async fn a_full_disk_takes_sqlite_down_until_there_is_room() {
    let monthly = helpers::quota().per(["user"]).limit(1000).window("month");
    let builder = Gate::accepting(["app"])
        .policy("quota", monthly)
        .chain(["signed-in", "quota"]);
    // A limit on the size of files acts like a full disk; its signal must be ignored. It is less than a page of the
    // database, and more than the first lines of the log, which is a file, too.
    let gate = Watched::start_by(&builder, &["env", "--ignore-signal=XFSZ"]).await;
    assert_eq!(gate.ask().await, 200);
    let limit_files = |bytes: &str| {
        let pid = gate.id();
        let limited = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--fsize={bytes}")])
            .status();
        assert!(limited.unwrap().success());
    };
    limit_files("3000:");
    assert_eq!(gate.ask().await, 500);
    gate.stays_down("").await;
    limit_files("unlimited:");
    gate.comes_back().await;
}

#[actix_web::test]
async fn an_invalid_sqlite_file_of_memberships_is_down_until_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let write = |path: &Path| std::fs::write(path, "some text that is long enough to be a header");
    write(&path).unwrap();
    let url = format!("sqlite:{}", path.display());
    let query = "select 'owner' where $1 <> $2";
    let gate = Watched::start(&asking(&url, query)).await;
    eventually("the news", async || {
        gate.lines("the store is down").len() == 1
    })
    .await;
    assert!(!gate.is_ready().await);
    std::fs::remove_file(&path).unwrap();
    sqlite(folder.path(), MEMBERS);
    eventually("its return", async || {
        gate.is_ready().await && gate.lines("the store is back").len() == 1
    })
    .await;
    assert_eq!(gate.lines("the store is down").len(), 1);
}
