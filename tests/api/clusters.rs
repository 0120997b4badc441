//! Redis clusters: failing nodes, moving slots, and promoted replicas.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    helpers::{Gate, TestApp, Token, env, eventually},
    real_parts::blocks,
    redis_server::Redis,
    scaling::{patient, quota, ready},
    store_failures::{ask_as, is_up, quota_of_users},
};

/// The timeout of the tests' stores, and an allowance for a busy machine.
const TIMEOUT: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_millis(250);

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// One quota of five for all users.
fn five(nodes: &[Redis]) -> Gate {
    let url = format!("redis+cluster://{}", nodes[0].address());
    patient(quota(&url, 5, "month"))
}

fn id(node: &Redis) -> String {
    node.run(&["CLUSTER", "MYID"])
}

/// The key of the counter, and the node that has it.
fn counter(nodes: &[Redis]) -> (String, usize) {
    let keys = nodes.iter().enumerate().flat_map(|(index, node)| {
        let keys = node.keys().into_iter();
        keys.map(move |key| (key, index))
    });
    let mut counters = keys.filter(|(key, _)| key.contains(":quota:"));
    let found = counters.next().unwrap();
    assert_eq!(counters.next(), None);
    found
}

#[actix_web::test]
async fn a_counter_that_moves_to_another_node_keeps_its_count() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let gate = five(&nodes).start().await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 200);
    let (key, from) = counter(&nodes);
    let to = (from + 1) % nodes.len();
    let slot = nodes[from]
        .number(&["CLUSTER", "KEYSLOT", &key])
        .to_string();
    let (source, target) = (&nodes[from], &nodes[to]);
    target.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(source)]);
    source.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(target)]);
    let port = target.port().to_string();
    source.run(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
    assert_eq!(counter(&nodes), (key.clone(), to));
    // The source has the slot, and the target has the key.
    assert_eq!(status(&gate).await, 200);
    for node in [target, source] {
        node.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(target)]);
    }
    // Now the target has both.
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 429);
    assert_eq!(counter(&nodes), (key, to));
    assert_eq!(gate.manage("/readyz").await.status, 200);
}

#[actix_web::test]
async fn a_replica_that_is_promoted_keeps_the_counts() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    let gate = five(&nodes).start().await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 200);
    let (_, primary) = counter(&nodes);
    let replica = Redis::node();
    let added = Command::new("redis-cli")
        .args([
            "--cluster",
            "add-node",
            &replica.address(),
            &nodes[0].address(),
        ])
        .args([
            "--cluster-slave",
            "--cluster-master-id",
            &id(&nodes[primary]),
        ])
        .stdin(Stdio::null())
        .output();
    assert!(added.unwrap().status.success());
    eventually("the replica", async || {
        let info = replica.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
            && replica.keys().len() == nodes[primary].keys().len()
    })
    .await;
    nodes[primary].go_down();
    assert_eq!(status(&gate).await, 500);
    replica.run(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    let mut issued = 0;
    eventually("the replica", async || {
        match status(&gate).await {
            200 => issued += 1,
            429 => return true,
            _ => {}
        }
        false
    })
    .await;
    assert_eq!(issued, 3);
}

#[actix_web::test]
async fn a_user_with_the_documented_rights_can_count_in_a_cluster() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let [acl, more] = &blocks("docs/scaling.md", "text")[..] else {
        panic!("two blocks")
    };
    for node in &nodes {
        for acl in [acl, more] {
            let words: Vec<_> = acl.split_whitespace().collect();
            assert_eq!(node.run(&words), "OK");
        }
    }
    let url = format!("redis+cluster://gate@{}", nodes[0].address());
    let gate = patient(quota(&url, 5, "month"))
        .set("stores.shared.password", env("PASSWORD"))
        .secret("PASSWORD", "a-password")
        .start()
        .await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
    for node in &nodes {
        node.run(&["ACL", "SETUSER", "gate", "off"]);
        node.run(&["CLIENT", "KILL", "USER", "gate"]);
    }
    eventually("its refusal", async || status(&gate).await == 500).await;
}

/// How many of sixty users are served; none waits longer than twice the timeout.
async fn served(gate: &TestApp) -> usize {
    let users = (0..60).map(async |number| ask_as(gate, &format!("user_{number}")).await);
    let asked = join_all(users).await;
    for (status, took) in &asked {
        assert!([200, 500].contains(status), "{status}");
        assert!(*took < TIMEOUT * 2, "{took:?}");
    }
    asked.iter().filter(|(status, _)| *status == 200).count()
}

/// One node of three does not answer: users with keys elsewhere are served, and the others fail at once.
async fn costs_only_its_own_users(
    nodes: &mut [Redis],
    die: impl FnOnce(&mut Redis),
    come_back: impl FnOnce(&mut Redis),
) {
    // The URL names a second node, so that the gate can start.
    let url = format!(
        "redis+cluster://{},{}",
        nodes[0].address(),
        nodes[1].address()
    );
    let gate = quota_of_users(&url).start().await;
    ready(&gate).await;
    assert_eq!(served(&gate).await, 60);
    let counters = |node: &Redis| {
        let keys = node.keys();
        keys.iter().filter(|key| key.contains(":quota:")).count()
    };
    let elsewhere = counters(&nodes[1]) + counters(&nodes[2]);
    assert!((1..60).contains(&elsewhere));
    die(&mut nodes[0]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(served(&gate).await, elsewhere);
        assert!(is_up(&gate, "shared").await);
    }
    // Requests no longer wait for the node. Other tests use the machine too, so the best of a few tries counts.
    let mut best = TIMEOUT;
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(served(&gate).await, elsewhere);
        best = best.min(began.elapsed());
    }
    assert!(best < SOON, "{best:?}");
    // Another gate starts without the node.
    let other = quota_of_users(&url).start().await;
    ready(&other).await;
    eventually("the other nodes", async || {
        served(&other).await == elsewhere
    })
    .await;
    come_back(&mut nodes[0]);
    eventually("the node", async || served(&gate).await == 60).await;
}

#[actix_web::test]
async fn a_killed_node_of_a_cluster_costs_only_its_own_users() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    costs_only_its_own_users(&mut nodes, Redis::go_down, Redis::come_up).await;
}

#[actix_web::test]
async fn a_hanging_node_of_a_cluster_costs_only_its_own_users() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    costs_only_its_own_users(
        &mut nodes,
        |node| node.signal("-STOP"),
        |node| node.signal("-CONT"),
    )
    .await;
}

#[actix_web::test]
async fn a_cluster_without_any_node_is_down_until_its_nodes_return() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!("redis+cluster://{}", nodes[0].address());
    let gate = quota(&url, 1000, "month").start().await;
    ready(&gate).await;
    nodes.iter_mut().for_each(Redis::go_down);
    eventually("the news", async || {
        assert_eq!(ask_as(&gate, "user_1").await.0, 500);
        gate.manage("/readyz").await.json["failing"][0] == "stores.shared"
    })
    .await;
    nodes.iter_mut().for_each(Redis::come_up);
    eventually("the cluster", async || {
        ask_as(&gate, "user_1").await.0 == 200
    })
    .await;
    assert!(is_up(&gate, "shared").await);
}
