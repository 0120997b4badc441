//! A probe tests what the gate needs: a store that lacks it goes down once, with the reason, and stays down until it has
//! it.

use std::{path::Path, process::Command};

use crate::{
    helpers::{Recipe, SECRET, eventually},
    members::{MEMBERS, asking, sqlite},
    postgres::Postgres,
    redis_server::Redis,
    scaling::{limit, patient, quota, ready},
    watched::Watched,
};

#[actix_web::test]
async fn a_postgresql_without_the_right_to_insert_is_down_until_it_is_granted() {
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
    // What a probe counts is nobody's, and is not kept.
    let kept = "select count(*) from imgwire_gate.quota where policy <> 'shared-quota'";
    assert_eq!(server.number(kept).await, 0);
}

#[actix_web::test]
async fn a_right_that_a_postgresql_withdraws_takes_it_down() {
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

/// A user of a Redis who may do this much. The password is a secret that the tests' gates have.
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

fn with_password(recipe: Recipe) -> Recipe {
    let more = format!("{}\npassword = {{ env = \"TEST_SECRET\" }}", recipe.more);
    Recipe { more, ..recipe }
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
async fn a_redis_whose_user_may_run_no_scripts_is_down_until_it_may() {
    let Some(server) = Redis::here() else { return };
    let rights = ["+get", "+set", "+del", "+pexpire", "+time", "+select"];
    let url = with_user(&server, &rights);
    let gate = Watched::start(&patient(with_password(quota(&url, 1000, "day")))).await;
    gate.stays_down("evalsha").await;
    server.run(&["ACL", "SETUSER", "gate", "+evalsha", "+script|load"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_redis_whose_user_may_not_write_is_down_until_it_may() {
    let Some(server) = Redis::here() else { return };
    let rights = ["+get", "+time", "+evalsha", "+script|load", "+select"];
    let url = with_user(&server, &rights);
    let settings = "limit = 1000\nperiod = \"1s\"";
    let gate = Watched::start(&patient(with_password(limit(&url, settings)))).await;
    gate.stays_down("can't run this command").await;
    server.run(&["ACL", "SETUSER", "gate", "+set"]);
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_redis_that_is_full_is_down_until_there_is_room() {
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
async fn a_redis_that_keeps_sessions_only_needs_no_scripts() {
    let Some(server) = Redis::here() else { return };
    let url = with_user(&server, &["+get", "+set", "+del", "+pexpire", "+select"]);
    let sessions = || {
        with_password(Recipe {
            more: format!("[stores.shared]\nurl = \"{url}\""),
            session: "store = \"shared\"\ncookie = { name = \"imgwire_gate\", secure = false }"
                .to_owned(),
            ..Recipe::default()
        })
    };
    let gate = sessions().start().await;
    ready(&gate).await;
    // A policy that is loaded later needs them.
    let Recipe {
        policies, chain, ..
    } = quota(&url, 10, "day");
    let counting = Recipe {
        policies,
        chain,
        ..sessions()
    };
    gate.reload(&counting).unwrap();
    eventually("the news", async || {
        gate.manage("/readyz").await.json["failing"][0] == "stores.shared"
    })
    .await;
    with_user(&server, &ALL_RIGHTS);
    ready(&gate).await;
}

#[actix_web::test]
async fn a_disk_that_is_full_is_down_until_there_is_room() {
    let recipe = Recipe {
        policies: r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app"]
            [policies.quota]
            kind = "quota"
            per = ["user"]
            limit = 1000
            window = "month"
            store = "main"
        "#
        .to_owned(),
        chain: "[\"signed-in\", \"quota\"]".to_owned(),
        ..Recipe::default()
    };
    // A limit on the size of files does to the store what a full disk does; its signal is to be ignored.
    let gate = Watched::start_by(&recipe, &["env", "--ignore-signal=XFSZ"]).await;
    assert_eq!(gate.ask().await, 200);
    let limit_files = |bytes: &str| {
        let pid = gate.id();
        let limited = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--fsize={bytes}")])
            .status();
        assert!(limited.unwrap().success());
    };
    limit_files("1000:");
    assert_eq!(gate.ask().await, 500);
    gate.stays_down("").await;
    limit_files("unlimited:");
    gate.comes_back().await;
}

#[actix_web::test]
async fn a_file_of_memberships_that_is_none_is_down_until_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let write = |path: &Path| std::fs::write(path, "some text that is long enough to be a header");
    write(&path).unwrap();
    let url = format!("sqlite:{}", path.display());
    let query = "select 'owner' where $1 <> $2";
    let gate = Watched::start(&asking(&url, query, "")).await;
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
