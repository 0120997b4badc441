//! A Redis that may evict keys can lose counters: readiness, the log, a metric and doctor say so.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    doctor_setup::{Setup, protected},
    helpers::{self, Token, eventually},
    redis_server::Redis,
    scaling::{patient, quota, ready},
    sentinels::Sentinels,
    tcp_proxy::{Network, TcpProxy},
    watched::Watched,
};

const EVICTS: &str = "stores.shared: the server may evict keys (maxmemory-policy allkeys-lru), so limits and quotas can be exceeded";
const METRIC: &str = "imgwire_gate_store_may_evict{store=\"shared\"}";

const LIMITED: [&str; 4] = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];

#[actix_web::test]
async fn a_server_that_may_evict_keys_is_degraded_until_its_policy_changes() {
    let Some(server) = Redis::here_with(&LIMITED) else {
        return;
    };
    let gate = Watched::start(&patient(quota(&server.url(), 1000, "day"))).await;
    gate.ready().await;
    assert_eq!(gate.degraded().await, [EVICTS]);
    assert_eq!(gate.metric(METRIC).await, 1.0);
    assert_eq!(gate.ask().await, 200);
    server.run(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    eventually("the other policy", async || {
        gate.degraded().await[0].contains("volatile-ttl")
    })
    .await;
    server.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("the end", async || gate.degraded().await.is_empty()).await;
    assert_eq!(gate.metric(METRIC).await, 0.0);
    // Another thread writes the log.
    eventually("the news", async || {
        gate.lines("the store no longer evicts keys").len() == 1
    })
    .await;
    let warnings = gate.lines("the store may lose counters");
    // One for each policy.
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|line| line["level"] == "WARN"));
    gate.was_never_down();
}

#[actix_web::test]
async fn a_server_without_a_limit_or_without_eviction_is_not_degraded() {
    for options in [
        ["--maxmemory", "100mb", "--maxmemory-policy", "noeviction"],
        ["--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"],
    ] {
        let Some(server) = Redis::here_with(&options) else {
            return;
        };
        let gate = Watched::start(&patient(quota(&server.url(), 1000, "day"))).await;
        gate.ready().await;
        assert!(gate.degraded().await.is_empty());
        assert!(gate.lines("the store may lose counters").is_empty());
    }
}

#[actix_web::test]
async fn evicted_keys_are_counted_and_logged() {
    let Some(server) = Redis::here_with(&LIMITED) else {
        return;
    };
    let gate = Watched::start(&patient(quota(&server.url(), 1000, "day"))).await;
    gate.ready().await;
    assert!(gate.lines("the store evicted keys").is_empty());
    let fill = "for number = 1, 3000 do redis.call('SET', 'other:' .. number, string.rep('x', 2000)) end return 'OK'";
    server.run(&["CONFIG", "SET", "maxmemory", "4mb"]);
    server.run(&["EVAL", fill, "0"]);
    eventually("the news", async || {
        gate.lines("the store evicted keys").len() == 1
    })
    .await;
    let lines = gate.lines("the store evicted keys");
    assert!(lines[0]["count"].as_u64().unwrap() > 0, "{lines:?}");
    assert_eq!(lines[0]["level"], "WARN");
    let evicted = "imgwire_gate_store_evicted_keys_total{store=\"shared\"}";
    assert!(gate.metric(evicted).await > 0.0);
    let degraded = gate.degraded().await;
    assert!(degraded[0].contains("it has evicted "), "{degraded:?}");
    // It says so again only after a while.
    server.run(&["EVAL", &fill.replace("other", "more"), "0"]);
    let before = gate.metric(evicted).await;
    eventually("more evictions", async || {
        gate.metric(evicted).await > before
    })
    .await;
    assert_eq!(gate.lines("the store evicted keys").len(), 1);
}

#[actix_web::test]
async fn a_node_of_a_cluster_that_may_evict_keys_is_named_in_the_log() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!("redis+cluster://{}", nodes[0].address());
    let gate = Watched::start(&patient(quota(&url, 1000, "day"))).await;
    gate.ready().await;
    assert!(gate.degraded().await.is_empty());
    nodes[2].run(&["CONFIG", "SET", "maxmemory", "100mb"]);
    nodes[2].run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    eventually("the node", async || gate.degraded().await == [EVICTS]).await;
    eventually("the news", async || {
        !gate.lines("the store may lose counters").is_empty()
    })
    .await;
    let lines = gate.lines("the store may lose counters");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["node"], nodes[2].address());
}

/// The command `INFO`, but not `CLIENT SETINFO`.
const INFO: &str = "$4\r\nINFO\r\n";

/// Requests share connections. The gate must not ask for `INFO` on one of them, because that would break it or keep its
/// answers back.
#[actix_web::test]
async fn a_proxy_that_does_not_know_info_disturbs_no_request() {
    let networks = [Network::ClosesOn(INFO), Network::Hides(INFO)];
    join_all(networks.map(is_undisturbed)).await;
}

async fn is_undisturbed(network: Network) {
    let Some(server) = Redis::here() else { return };
    let proxy = TcpProxy::before(server.port());
    proxy.set(network);
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let gate = quota(&url, 100_000, "day").set("stores.shared.timeout", "5s");
    let gate = gate.start().await;
    ready(&gate).await;
    let asked = proxy.withheld();
    assert!(asked > 0, "the gate asks when it opens the store");
    let issue = async || {
        let answer = gate.ask_as(&Token::of("user_1")).await;
        assert_eq!(answer.status, 200, "{network:?}: {answer:?}");
    };
    let callers = (0..4).map(async |_| {
        let began = Instant::now();
        while proxy.withheld() == asked {
            issue().await;
            assert!(began.elapsed() < Duration::from_secs(60), "{network:?}");
        }
        // Requests after it use the same connections.
        for _ in 0..20 {
            issue().await;
        }
    });
    join_all(callers).await;
}

#[actix_web::test]
async fn a_primary_behind_sentinels_that_may_evict_keys_is_degraded() {
    let Some(server) = Redis::here_with(&LIMITED) else {
        return;
    };
    let sentinels = Sentinels::of(&server);
    let url = format!("redis+sentinel://{}/counters", sentinels.addresses());
    let gate = Watched::start(&patient(quota(&url, 1000, "day"))).await;
    gate.ready().await;
    assert_eq!(gate.degraded().await, [EVICTS]);
    assert_eq!(gate.ask().await, 200);
}

#[actix_web::test]
async fn a_server_that_restarted_is_logged_once() {
    let Some(mut server) = Redis::here() else {
        return;
    };
    let gate = Watched::start(&patient(quota(&server.url(), 1000, "day"))).await;
    gate.ready().await;
    let message = "the store is another server process";
    for restarts in 1..3 {
        assert_eq!(gate.lines(message).len(), restarts - 1);
        server.go_down();
        server.come_up();
        eventually("the restart", async || {
            gate.lines(message).len() == restarts
        })
        .await;
    }
    assert_eq!(gate.lines(message)[0]["level"], "WARN");
}

#[actix_web::test]
async fn doctor_warns_of_a_server_that_may_evict_keys() {
    let Some(server) = Redis::here_with(&LIMITED) else {
        return;
    };
    let setup = Setup::new();
    let gate = protected()
        .store("shared", json!({ "url": server.url() }))
        .policy(
            "daily",
            helpers::quota().per([""; 0]).limit(3).store("shared"),
        )
        .chain(["signed-in", "daily"]);
    let report = setup.probe(&gate).await;
    let remedy = "maxmemory-policy noeviction";
    report.assert("stores.shared.eviction", "warning", "allkeys-lru", remedy);
    assert_eq!(report.state("stores.shared"), "ok");
    server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let report = setup.probe(&gate).await;
    assert!(!report.alarms().contains(&"stores.shared.eviction"));
}
