//! A Redis user with the documented rights can do everything, and each right that is missing is named. Where a server or a
//! proxy refuses to run scripts by their hash, the gate sends whole scripts.

use serde_json::json;

use crate::{
    doctor_setup::{Setup, protected},
    helpers::{self, Gate, SECRET, Token, eventually},
    real_parts::blocks,
    redis_server::Redis,
    scaling::{patient, quota, ready},
    sentinels::Sentinels,
    shared_servers::{everything, works},
    store_probes::with_password,
    watched::Watched,
};

/// Creates the user of the documentation.
fn documented(server: &Redis) {
    let [acl, _] = &blocks("docs/scaling.md", "text")[..] else {
        panic!("two blocks")
    };
    let password = format!(">{SECRET}");
    let words: Vec<_> = acl
        .split_whitespace()
        .map(|word| {
            if word == ">a-password" {
                &password
            } else {
                word
            }
        })
        .collect();
    assert_eq!(server.run(&["ACL", "SETUSER", "gate", "reset"]), "OK");
    assert_eq!(server.run(&words), "OK");
}

fn as_user(server: &Redis, gate: impl Fn(&str) -> Gate) -> Gate {
    let url = format!("redis://gate@127.0.0.1:{}/3", server.port());
    with_password(gate(&url))
}

async fn is_named(server: &Redis, change: &[&str], named: &str) {
    documented(server);
    server.run(&["FLUSHALL"]);
    server.run(&["SCRIPT", "FLUSH"]);
    server.run(&[&["ACL", "SETUSER", "gate"], change].concat());
    let gate = Watched::start(&as_user(server, everything)).await;
    eventually("the reason", async || {
        let lines = gate.lines("the store is down");
        let reasons = lines.iter().map(|line| line["reason"].as_str().unwrap());
        let reasons: Vec<_> = reasons.collect();
        assert!(
            reasons.iter().all(|reason| reason.contains(named)),
            "{change:?}: {reasons:?}"
        );
        !reasons.is_empty()
    })
    .await;
    assert_eq!(gate.ask().await, 500);
    documented(server);
    gate.comes_back().await;
}

#[actix_web::test]
async fn each_missing_right_is_named_until_it_is_granted() {
    let Some(server) = Redis::here() else { return };
    for right in [
        "get",
        "set",
        "del",
        "pexpire",
        "time",
        "evalsha",
        "script|load",
        "select",
    ] {
        is_named(&server, &[&format!("-{right}")], &format!("+{right}")).await;
    }
    is_named(&server, &["resetkeys", "~other:*"], "~imgwire-gate:*").await;
    is_named(&server, &["-set", "-time"], "+set +time").await;
}

#[actix_web::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let Some(server) = Redis::here() else { return };
    documented(&server);
    works(&as_user(&server, everything).start().await).await;
    let keys = server.keys_of("3");
    assert!(!keys.is_empty());
    assert!(
        keys.iter().all(|key| key.starts_with("imgwire-gate:")),
        "{keys:?}"
    );
}

#[actix_web::test]
async fn missing_cluster_commands_are_named() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    for node in &nodes {
        documented(node);
        node.run(&["ACL", "SETUSER", "gate", "+asking"]);
    }
    let url = format!("redis+cluster://gate@{}", nodes[0].address());
    let gate = Watched::start(&with_password(quota(&url, 1000, "day"))).await;
    eventually("the reason", async || {
        let lines = gate.lines("the store is down");
        lines
            .iter()
            .any(|line| line["reason"].as_str().unwrap().contains("+cluster|slots"))
    })
    .await;
    for node in &nodes {
        node.run(&["ACL", "SETUSER", "gate", "+cluster|slots"]);
    }
    gate.comes_back().await;
}

#[actix_web::test]
async fn rights_that_only_inform_the_gate_are_named_and_not_required() {
    let Some(server) = Redis::here() else { return };
    let sentinels = Sentinels::of(&server);
    documented(&server);
    server.run(&["ACL", "SETUSER", "gate", "-info", "-role"]);
    let url = format!("redis+sentinel://gate@{}/counters", sentinels.addresses());
    let gate = Watched::start(&with_password(patient(quota(&url, 1000, "day")))).await;
    gate.ready().await;
    assert_eq!(gate.ask().await, 200);
    assert!(gate.degraded().await.is_empty());
    eventually("both", async || {
        gate.lines("the user lacks an optional right").len() == 2
    })
    .await;
    let lines = gate.lines("the user lacks an optional right");
    for right in ["+info", "+role"] {
        assert!(lines.iter().any(|line| line["right"] == right), "{lines:?}");
    }
    let setup = Setup::new();
    let report = setup
        .probe(&with_password(
            protected()
                .store("shared", json!({ "url": url }))
                .policy(
                    "daily",
                    helpers::quota().per([""; 0]).limit(3).store("shared"),
                )
                .chain(["signed-in", "daily"]),
        ))
        .await;
    let warnings = report
        .points
        .iter()
        .filter(|it| it["part"] == "stores.shared.rights");
    let warnings: Vec<_> = warnings.map(|it| it["message"].to_string()).collect();
    assert_eq!(warnings.len(), 2, "{report:?}");
    assert!(warnings.concat().contains("+info"), "{warnings:?}");
}

#[actix_web::test]
async fn doctor_names_the_missing_rights() {
    let Some(server) = Redis::here() else { return };
    documented(&server);
    server.run(&["ACL", "SETUSER", "gate", "-time", "resetkeys", "~mine:*"]);
    let url = format!("redis://gate@127.0.0.1:{}", server.port());
    let setup = Setup::new();
    let gate = protected()
        .store("shared", json!({ "url": url }))
        .policy(
            "daily",
            helpers::quota().per([""; 0]).limit(3).store("shared"),
        )
        .chain(["signed-in", "daily"]);
    let report = setup.probe(&with_password(gate)).await;
    let rights = "the user lacks the rights +time ~imgwire-gate:*";
    let remedy = "allow the user in `url` to read and write the keys `imgwire-gate:*`";
    report.assert("stores.shared", "failed", rights, remedy);
}

/// The quota is exact, and the gate has used this command.
async fn counts_by(server: &Redis, gate: Gate, command: &str) {
    let before = server.calls(command);
    let gate = patient(gate).start().await;
    ready(&gate).await;
    for expected in [200, 200, 429] {
        let answer = gate.ask_as(&Token::of("user_1")).await;
        assert_eq!(answer.status, expected);
    }
    assert!(server.calls(command) > before);
}

#[actix_web::test]
async fn whole_scripts_are_sent_to_a_server_that_refuses_to_load_them() {
    let Some(server) = Redis::here() else { return };
    documented(&server);
    server.run(&["ACL", "SETUSER", "gate", "-script|load", "+eval"]);
    counts_by(
        &server,
        as_user(&server, |url| quota(url, 2, "day")),
        "eval",
    )
    .await;
    // The server keeps what it was sent.
    let evaluated = server.calls("eval");
    let gate = patient(as_user(&server, |url| quota(url, 2, "day")));
    let gate = gate.start().await;
    ready(&gate).await;
    gate.ask_as(&Token::of("user_1")).await;
    assert_eq!(server.calls("eval"), evaluated);
}

#[actix_web::test]
async fn whole_scripts_are_sent_to_a_server_that_refuses_hashes() {
    let Some(server) = Redis::here() else { return };
    documented(&server);
    server.run(&[
        "ACL",
        "SETUSER",
        "gate",
        "-script|load",
        "-evalsha",
        "+eval",
    ]);
    counts_by(
        &server,
        as_user(&server, |url| quota(url, 2, "day")),
        "eval",
    )
    .await;
    // Each connection tries a hash only until it was refused.
    let gate = patient(as_user(&server, |url| quota(url, 100, "month")));
    let gate = gate.start().await;
    ready(&gate).await;
    let token = Token::of("user_1");
    let ask = || gate.ask_as(&token);
    for _ in 0..6 {
        ask().await;
    }
    let (evaluated, refused) = (server.calls("eval"), server.refused("evalsha"));
    for _ in 0..20 {
        ask().await;
    }
    assert_eq!(server.calls("eval") - evaluated, 20);
    assert!(
        server.refused("evalsha") - refused <= 1,
        "one for each new connection"
    );
}

#[actix_web::test]
async fn scripts_that_the_server_has_need_no_right_to_load_them() {
    let Some(server) = Redis::here() else { return };
    documented(&server);
    let gate = || as_user(&server, |url| quota(url, 2, "day"));
    let first = patient(gate()).start().await;
    ready(&first).await;
    server.run(&["ACL", "SETUSER", "gate", "-script|load", "-eval"]);
    counts_by(&server, gate(), "evalsha").await;
}

#[actix_web::test]
async fn whole_scripts_are_sent_through_a_proxy_that_does_not_know_the_commands() {
    let renamed = [
        "--rename-command",
        "SCRIPT",
        "",
        "--rename-command",
        "EVALSHA",
        "",
    ];
    let Some(server) = Redis::here_with(&renamed) else {
        return;
    };
    counts_by(&server, quota(&server.url(), 2, "day"), "eval").await;
}
