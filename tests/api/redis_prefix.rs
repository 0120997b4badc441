//! Every key in Redis begins with the store's prefix, so that gates with different prefixes count separately.

use crate::{
    helpers::{Gate, SECRET, TestApp, Token, eventually},
    redis_server::Redis,
    scaling::{patient, quota, ready},
    shared_servers::{everything, works},
    store_probes::with_password,
    watched::Watched,
};

fn prefixed(gate: Gate, prefix: &str) -> Gate {
    gate.set("stores.shared.prefix", prefix)
}

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

#[actix_web::test]
async fn gates_with_different_prefixes_count_separately() {
    let Some(server) = Redis::here() else { return };
    let builder = || patient(quota(&server.url(), 1, "day"));
    let gates = [
        prefixed(builder(), "team-a").start().await,
        prefixed(builder(), "team-b").start().await,
        builder().start().await,
        // The default.
        prefixed(builder(), "imgwire-gate").start().await,
    ];
    for gate in &gates {
        ready(gate).await;
    }
    let mut statuses = Vec::new();
    for gate in &gates {
        statuses.push(status(gate).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let mut counters = server.keys();
    counters.retain(|key| key.contains(":quota:"));
    for prefix in ["team-a:", "team-b:", "imgwire-gate:"] {
        let count = counters
            .iter()
            .filter(|key| key.starts_with(prefix))
            .count();
        assert_eq!(count, 1, "{counters:?}");
    }
}

#[actix_web::test]
async fn limits_quotas_and_sessions_are_under_the_prefix_that_an_acl_allows() {
    let Some(server) = Redis::here() else { return };
    let password = format!(">{SECRET}");
    let user = [
        "ACL",
        "SETUSER",
        "gate",
        "on",
        &password,
        "~app:gate:*",
        "+@all",
    ];
    assert_eq!(server.run(&user), "OK");
    let url = format!("redis://gate@127.0.0.1:{}", server.port());
    let gate = prefixed(with_password(everything(&url)), "app:gate");
    works(&gate.start().await).await;
    let keys = server.keys();
    assert!(keys.len() >= 3, "{keys:?}");
    assert!(
        keys.iter().all(|key| key.starts_with("app:gate:")),
        "{keys:?}"
    );
}

#[actix_web::test]
async fn a_cluster_spreads_the_keys_of_a_prefix() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!("redis+cluster://{}", nodes[0].address());
    let gate = prefixed(everything(&url), "team-a").start().await;
    works(&gate).await;
    for number in 0..30 {
        gate.ask_as(&Token::of(&format!("user_{number}"))).await;
    }
    for node in &nodes {
        let keys = node.keys();
        assert!(!keys.is_empty());
        assert!(
            keys.iter().all(|key| key.starts_with("team-a:")),
            "{keys:?}"
        );
    }
}

#[actix_web::test]
async fn a_reload_changes_the_prefix() {
    let Some(server) = Redis::here() else { return };
    let builder = |prefix| prefixed(patient(quota(&server.url(), 1, "day")), prefix);
    let gate = Watched::start(&builder("before")).await;
    gate.ready().await;
    assert_eq!([gate.ask().await, gate.ask().await], [200, 429]);
    gate.reload(&builder("after"));
    eventually("the other counter", async || gate.ask().await == 200).await;
    assert_eq!(gate.ask().await, 429);
    gate.reload(&builder("before"));
    eventually("the reload", async || {
        gate.lines("config reloaded").len() == 2
    })
    .await;
    assert_eq!(gate.ask().await, 429);
}
