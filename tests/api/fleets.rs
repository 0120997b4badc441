//! Three gates on stores that fail: limits stay exact, and all serve again, whatever restarted in which order.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::{
    helpers::{self, Emulator, Gate, TestApp, Token, eventually, rate_limit},
    postgres::Postgres,
    process::GateProcess,
    redis_server::Redis,
    scaling::{counting, patient, three},
    store_hosts::Mute,
};

const LIMIT: u16 = 5;
const USERS: usize = 30;

/// A quota and a limit per user.
fn per_user(url: &str) -> Gate {
    let quota = helpers::quota().per(["user"]).limit(LIMIT).window("month");
    let burst = rate_limit().per(["user"]).limit(1000);
    patient(counting(url))
        .policy("daily", quota.store("shared"))
        .policy("burst", burst.store("shared"))
        .chain(["signed-in", "burst", "daily"])
}

/// Every user asks ten times, at the gates in turn. Returns how many tokens each got, and how often a store failed.
async fn ask_all(gates: &[TestApp; 3]) -> Vec<(u16, u16)> {
    let users = (0..USERS).map(async |user| {
        let token = Token::of(&format!("user_{user}"));
        let (mut issued, mut failed) = (0, 0);
        for turn in 0..10 {
            match gates[(user + turn) % 3]
                .ask_as(&token)
                .await
                .status
                .as_u16()
            {
                200 => issued += 1,
                429 => {}
                500 => failed += 1,
                other => panic!("{other}"),
            }
        }
        (issued, failed)
    });
    join_all(users).await
}

#[actix_web::test]
async fn a_fleet_stays_exact_while_a_node_of_its_cluster_is_lost() {
    let Some(mut nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!(
        "redis+cluster://{},{}",
        nodes[0].address(),
        nodes[1].address()
    );
    let gates = three(|| per_user(&url)).await;
    // Three tokens of five.
    for _ in 0..3 {
        let asked = (0..USERS).map(async |user| {
            let token = Token::of(&format!("user_{user}"));
            gates[user % 3].ask_as(&token).await.status.as_u16()
        });
        assert_eq!(join_all(asked).await, [200; USERS]);
    }
    nodes[2].go_down();
    let (mut served, mut lost) = (0, 0);
    let during = ask_all(&gates).await;
    for (issued, failed) in &during {
        assert!(*issued <= LIMIT - 3, "{during:?}");
        match failed {
            0 => served += 1,
            _ => lost += 1,
        }
    }
    assert!(served > 0 && lost > 0, "{during:?}");
    nodes[2].come_up();
    eventually("the node", async || {
        // A read costs no token.
        let asked = (0..USERS).map(async |user| {
            gates[user % 3]
                .manage(&format!("/quota/daily?key=user_{user}"))
                .await
                .status
        });
        join_all(asked).await.iter().all(|status| *status == 200)
    })
    .await;
    let after = ask_all(&gates).await;
    for ((before, _), (after, failed)) in during.iter().zip(&after) {
        // `appendfsync always` kept every count.
        assert_eq!(
            3 + before + after,
            LIMIT,
            "{after} after {before}, {failed}"
        );
    }
}

#[actix_web::test]
async fn a_fleet_stays_exact_with_a_seed_that_says_nothing() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let mute = Mute::start();
    let url = format!(
        "redis+cluster://127.0.0.1:{},{}",
        mute.port(),
        nodes[0].address()
    );
    // It starts within the time limit of its store.
    let gate = || per_user(&url).set("stores.shared.timeout", "2s");
    let began = Instant::now();
    let gates = three(gate).await;
    assert!(began.elapsed() < Duration::from_secs(6), "three gates");
    let issued = ask_all(&gates).await;
    assert_eq!(issued, [(LIMIT, 0); USERS]);
    drop(gates);

    // A seed that stops answering while the gates run.
    for node in &nodes {
        node.run(&["FLUSHALL"]);
    }
    let url = format!(
        "redis+cluster://{},{}",
        nodes[0].address(),
        nodes[1].address()
    );
    let gates = three(|| per_user(&url).set("stores.shared.timeout", "2s")).await;
    nodes[0].signal("-STOP");
    let issued = ask_all(&gates).await;
    nodes[0].signal("-CONT");
    for (issued, failed) in &issued {
        assert!(*issued == LIMIT || *failed > 0, "{issued} {failed}");
        assert!(*issued <= LIMIT);
    }
    assert!(issued.iter().any(|(issued, _)| *issued == LIMIT));
    eventually("the node", async || {
        let rest = ask_all(&gates).await;
        rest.iter().all(|(_, failed)| *failed == 0)
    })
    .await;
    // Operations that may have counted are not repeated, so no user got more.
    for user in 0..USERS {
        let used = gates[0]
            .manage(&format!("/quota/daily?key=user_{user}"))
            .await;
        assert_eq!(used.json["used"], LIMIT);
    }
}

/// Three gates as processes that count in Redis and in PostgreSQL.
struct Fleet {
    gates: Vec<GateProcess>,
    redis: Redis,
    postgres: Postgres,
    config: std::path::PathBuf,
    _folder: TempDir,
    _imgwire: Emulator,
}

const ALL: u64 = 60;

impl Fleet {
    async fn start() -> Option<Self> {
        let (redis, postgres) = (Redis::here()?, Postgres::here()?.await);
        let imgwire = Emulator::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let quota = |store: &str| {
            let quota = helpers::quota().per([""; 0]).limit(ALL).window("month");
            quota.store(store)
        };
        let config = counting(&redis.url())
            .set("stores.shared.timeout", "2s")
            .store("database", serde_json::json!({ "url": postgres.url() }))
            .policy("in-redis", quota("shared"))
            .policy("in-postgresql", quota("database"))
            .chain(["signed-in", "in-redis", "in-postgresql"])
            .write(imgwire.url(), folder.path());
        let mut fleet = Self {
            gates: Vec::new(),
            redis,
            postgres,
            config,
            _folder: folder,
            _imgwire: imgwire,
        };
        fleet.start_gates().await;
        Some(fleet)
    }

    async fn start_gates(&mut self) {
        for _ in 0..3 {
            let gate = GateProcess::start_with(&self.config, &[], "warn,imgwire_gate=info", &[]);
            self.gates.push(gate.await);
        }
    }

    async fn restart(&mut self, part: char) {
        match part {
            'g' => {
                for gate in &mut self.gates {
                    gate.signal("-KILL");
                    gate.end().await;
                }
                self.gates.clear();
                self.start_gates().await;
            }
            'r' => {
                self.redis.go_down();
                self.redis.come_up();
            }
            _ => {
                self.postgres.go_down();
                self.postgres.come_up().await;
            }
        }
    }

    /// How many of nine requests get a token, at the gates in turn.
    async fn ask(&self) -> u64 {
        let token = Token::of("user_1").sign();
        let asked = (0..9).map(async |turn: usize| self.gates[turn % 3].ask(&token).await);
        let asked = join_all(asked).await;
        asked.iter().filter(|status| **status == Some(200)).count() as u64
    }
}

#[actix_web::test]
async fn a_restart_of_everything_in_every_order_loses_no_count() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let mut issued = 0;
    for order in ["grp", "gpr", "rgp", "rpg", "pgr", "prg"] {
        for part in order.chars() {
            // Requests run while it restarts, and before the next one does.
            issued += fleet.ask().await;
            fleet.restart(part).await;
        }
        // Every gate serves, or says that the quota is exhausted.
        let token = Token::of("user_1").sign();
        for gate in &fleet.gates {
            eventually("the gate", async || match gate.ask(&token).await {
                Some(200) => {
                    issued += 1;
                    true
                }
                status => status == Some(429),
            })
            .await;
        }
        assert!(issued <= ALL, "{issued} after {order}");
    }
    assert!(issued > 0);
    // What is left can be used, and no more.
    let token = Token::of("user_1").sign();
    let gate = &fleet.gates[0];
    eventually("the end", async || match gate.ask(&token).await {
        Some(200) => {
            issued += 1;
            false
        }
        status => status == Some(429),
    })
    .await;
    assert!(issued <= ALL, "{issued}");
    // Either store can deny, so the statuses do not show that both counted every token.
    for policy in ["in-redis", "in-postgresql"] {
        let url = format!("{}/quota/{policy}?key=", gate.management());
        let mut shown = awc::Client::default().get(url).send().await.unwrap();
        let shown: serde_json::Value = shown.json().await.unwrap();
        let used = shown["used"].as_u64().unwrap();
        assert!((issued..=ALL).contains(&used), "{policy}: {shown}");
    }
}
