//! Several gates behind a pooler.

use std::time::Duration;

use futures_util::future::{join, join_all};

use crate::{
    helpers::TestApp,
    members::ask_for,
    postgres_pooler::{both, pooled},
    scaling::{issued_in_turn, patient, quota, ready, status, three},
};

/// Three gates and two hundred callers share two server connections with an app that changes its session all the time,
/// while first the pooler and then the server restarts.
#[actix_web::test]
async fn three_gates_behind_a_pooler_never_exceed_the_quota_and_recover_from_restarts() {
    const QUOTA: usize = 1000;
    let Some((mut server, mut pooler)) = pooled(2).await else {
        return;
    };
    let url = pooler.url();
    let start = async || both(&url, QUOTA).start().await;
    let gates = [start().await, start().await, start().await];
    for gate in &gates {
        ready(gate).await;
    }
    let ask = async |turn: usize| ask_for(&gates[turn % 3], "user_1", "ws_1").await.status;
    let ask_until = async |caller: usize, enough: &dyn Fn() -> bool| {
        let mut got = 0;
        for turn in caller.. {
            if enough() {
                break;
            }
            match ask(turn).await.as_u16() {
                200 => got += 1,
                429 => break,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        got
    };
    let app = pooler.connect().await;
    let is_over = std::cell::Cell::new(false);
    let havoc = async {
        for left in [
            "set default_transaction_read_only to on",
            "set synchronous_commit to off",
            "set role to none",
        ] {
            app.batch_execute(left).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pooler.go_down();
        tokio::time::sleep(Duration::from_millis(300)).await;
        pooler.come_up();
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.go_down();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.come_up().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        is_over.set(true);
    };
    let enough = || is_over.get();
    let callers = join_all((0..200).map(|caller| ask_until(caller, &enough)));
    let (got, ()) = join(callers, havoc).await;
    let mut got: usize = got.into_iter().sum();
    for gate in &gates {
        ready(gate).await;
    }
    while ask(got).await == 200 {
        got += 1;
    }
    assert_eq!(status_of_all(&gates).await, [429; 3]);
    assert!(got <= QUOTA, "{got}");
    // What was in flight at a restart may be lost: at most all callers, twice.
    assert!(got + 400 >= QUOTA, "{got}");
    let count = server
        .number("select sum(used)::bigint from imgwire_gate.quota")
        .await;
    assert_eq!(count, i64::try_from(QUOTA).unwrap());
}

async fn status_of_all(gates: &[TestApp; 3]) -> [u16; 3] {
    let mut statuses = [0; 3];
    for (gate, status) in gates.iter().zip(&mut statuses) {
        *status = ask_for(gate, "user_1", "ws_1").await.status.as_u16();
    }
    statuses
}

/// Without restarts the quota is exact, and no request fails.
#[actix_web::test]
async fn three_gates_behind_a_pooler_issue_exactly_the_quota() {
    const QUOTA: usize = 600;
    let Some((_server, pooler)) = pooled(2).await else {
        return;
    };
    let gates = three(|| patient(quota(&pooler.url(), QUOTA, "month"))).await;
    assert_eq!(issued_in_turn(&gates, 150).await, QUOTA);
}

#[actix_web::test]
async fn gates_that_start_together_behind_a_pooler_create_the_tables_once() {
    let Some((server, pooler)) = pooled(2).await else {
        return;
    };
    let start = async |_| {
        let gate = patient(quota(&pooler.url(), 5, "month")).start().await;
        ready(&gate).await;
        gate
    };
    let gates = join_all((0..6).map(start)).await;
    for gate in &gates {
        assert!(matches!(status(gate).await, 200 | 429));
    }
    let migrations = server.number("select count(*) from imgwire_gate.migration");
    assert_eq!(migrations.await, 4);
    let locks = "select count(*) from pg_locks where locktype = 'advisory'";
    assert_eq!(server.number(locks).await, 0);
}
