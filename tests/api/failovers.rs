//! A replica takes over: what clients get beyond a limit is at most what the replica lacked, because Redis replicates after
//! it has answered.

use std::process::{Command, Stdio};

use crate::{
    helpers::{TestApp, Token, eventually},
    real_parts::free_port,
    redis_server::Redis,
    scaling::{patient, quota, ready},
    sentinels::Sentinels,
};

const LIMIT: usize = 40;

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// How many units the counter of the quota has on a server.
fn counted(server: &Redis) -> usize {
    let keys = server.keys();
    let Some(key) = keys.iter().find(|key| key.contains(":quota:")) else {
        return 0;
    };
    let used = "local _, _, used = struct.unpack('<ddd', redis.call('GET', KEYS[1])) return tostring(used)";
    let used = server.run_here(&["EVAL_RO", used, "1", key]);
    used.parse::<f64>().unwrap() as usize
}

async fn issue(gate: &TestApp, count: usize) {
    for _ in 0..count {
        assert_eq!(status(gate).await, 200);
    }
}

/// Asks until the quota is exhausted. Returns how many tokens arrived.
async fn rest(gate: &TestApp) -> usize {
    let mut issued = 0;
    eventually("the failover", async || {
        match status(gate).await {
            200 => issued += 1,
            429 => return true,
            _ => {}
        }
        false
    })
    .await;
    issued
}

/// A gate has issued tokens, of which the replica has only some when the primary is lost.
async fn overruns_by_what_was_lost(
    gate: &TestApp,
    primary: &mut Redis,
    replica: &Redis,
    promote: impl AsyncFnOnce(),
) {
    issue(gate, 10).await;
    eventually("the replica", async || counted(replica) == 10).await;
    // The replica hangs, while the primary goes on.
    replica.signal("-STOP");
    issue(gate, 7).await;
    assert_eq!(counted(primary), 17);
    primary.go_down();
    replica.signal("-CONT");
    promote().await;
    eventually("the promoted replica", async || {
        replica
            .run(&["INFO", "replication"])
            .contains("role:master")
    })
    .await;
    let had = counted(replica);
    assert!((10..=17).contains(&had), "{had}");
    let lost = 17 - had;
    let issued = 17 + rest(gate).await;
    assert!(issued <= LIMIT + lost, "{issued} with {lost} lost");
    // Nothing else is lost: every unit that the replica had not counted was issued.
    assert_eq!(issued, LIMIT + lost);
}

#[actix_web::test]
async fn sentinels_promote_a_replica_and_the_overrun_is_what_it_lacked() {
    let Some(mut primary) = Redis::here() else {
        return;
    };
    let port = primary.port().to_string();
    let replica = Redis::start(free_port(), &["--replicaof", "127.0.0.1", &port]);
    let sentinels = Sentinels::of(&primary);
    let url = format!("redis+sentinel://{}/counters", sentinels.addresses());
    let gate = quota(&url, LIMIT, "month")
        .set("stores.shared.timeout", "2s")
        .start()
        .await;
    ready(&gate).await;
    sentinels.know_a_replica().await;
    overruns_by_what_was_lost(&gate, &mut primary, &replica, async || {}).await;
}

#[actix_web::test]
async fn a_cluster_promotes_a_replica_and_the_overrun_is_what_it_lacked() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!(
        "redis+cluster://{},{}",
        nodes[0].address(),
        nodes[1].address()
    );
    let gate = patient(quota(&url, LIMIT, "month")).start().await;
    ready(&gate).await;
    issue(&gate, 1).await;
    gate.request_management(actix_web::http::Method::DELETE, "/quota/shared-quota?key=")
        .send()
        .await;
    let has_it = |node: &Redis| node.keys().iter().any(|key| key.contains(":quota:"));
    let owner = nodes.iter().position(has_it).unwrap();
    let replica = Redis::node();
    let id = nodes[owner].run(&["CLUSTER", "MYID"]);
    let added = Command::new("redis-cli")
        .args([
            "--cluster",
            "add-node",
            &replica.address(),
            &nodes[owner].address(),
        ])
        .args(["--cluster-slave", "--cluster-master-id", &id])
        .stdin(Stdio::null())
        .output();
    assert!(added.unwrap().status.success());
    eventually("the replica", async || {
        let info = replica.run(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    })
    .await;
    let mut primary = nodes.remove(owner);
    let takeover = async || {
        replica.run(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    };
    overruns_by_what_was_lost(&gate, &mut primary, &replica, takeover).await;
}
