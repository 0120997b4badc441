//! A slow or failing operation is a fault of its request: the store stays up, and other requests are served.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    backends::{Server, suite},
    helpers::{Gate, TestApp, Token, eventually, quota},
    members::{MEMBERS, QUERY, ask_for, asking},
    postgres::Postgres,
    redis_server::Redis,
    scaling::{counting, patient, ready},
    tcp_proxy::TcpProxy,
    watched::Watched,
};

suite! {
    [an_operation_that_may_have_counted_is_not_repeated,]:
    in_redis: Redis,
    in_postgresql: Postgres,
}

/// A quota per user.
pub(crate) fn quota_of_users(url: &str) -> Gate {
    counting(url)
        .policy("daily", quota().per(["user"]).limit(1000).store("shared"))
        .chain(["signed-in", "daily"])
}

pub(crate) async fn ask_as(gate: &TestApp, user: &str) -> (u16, Duration) {
    let began = Instant::now();
    let answer = gate.ask_as(&Token::of(user)).await;
    (answer.status.as_u16(), began.elapsed())
}

pub(crate) async fn is_up(gate: &TestApp, store: &str) -> bool {
    let up = format!("imgwire_gate_store_up{{store=\"{store}\"}}");
    gate.metric(&up).await == 1.0 && gate.manage("/readyz").await.status == 200
}

#[actix_web::test]
async fn a_redis_key_of_another_type_is_a_fault_only_for_its_user() {
    let Some(server) = Redis::here() else { return };
    let gate = quota_of_users(&server.url()).start().await;
    ready(&gate).await;
    for (spoil, user) in [("RPUSH", "user_1"), ("SET", "user_2")] {
        let before: HashSet<_> = server.keys().into_iter().collect();
        assert_eq!(ask_as(&gate, user).await.0, 200);
        let keys = server.keys();
        let key = keys
            .iter()
            .find(|key| key.contains(":quota:") && !before.contains(*key));
        let key = key.unwrap();
        server.run(&["DEL", key]);
        server.run(&[spoil, key, "x"]);
        let connections = || {
            let stats = server.run(&["INFO", "stats"]);
            let mut lines = stats.lines();
            let count = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
            count.unwrap().parse::<u64>().unwrap()
        };
        let connected = connections();
        for other in 0..50 {
            assert_eq!(ask_as(&gate, user).await.0, 500);
            assert_eq!(ask_as(&gate, &format!("other_{other}")).await.0, 200);
            assert!(is_up(&gate, "shared").await);
        }
        // The server is not probed for each failure.
        let connected = connections() - connected;
        assert!(connected < 20, "{connected} connections");
    }
}

#[actix_web::test]
async fn an_id_that_postgresql_refuses_does_not_fail_concurrent_requests() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server
        .run("create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'")
        .await;
    let url = format!("postgres://postgres@127.0.0.1:{}/latin", server.port());
    let gate = patient(quota_of_users(&url)).start().await;
    ready(&gate).await;
    for _ in 0..5 {
        let users = (0..40).map(async |number| {
            // The database has no such character.
            let user = if number % 20 == 7 {
                format!("\u{2603} {number}")
            } else {
                format!("user_{number}")
            };
            (number, ask_as(&gate, &user).await.0)
        });
        for (number, status) in join_all(users).await {
            assert_eq!(status, if number % 20 == 7 { 500 } else { 200 });
        }
        assert!(is_up(&gate, "shared").await);
    }
    let used = gate.manage("/quota/daily?key=user_1").await;
    assert_eq!(used.json["used"], 5);
}

/// A gate that has used all of its connections.
async fn used_before(url: &str) -> TestApp {
    let gate = patient(quota_of_users(url)).start().await;
    ready(&gate).await;
    for answer in join_all((0..8).map(|_| ask_as(&gate, "user_1"))).await {
        assert_eq!(answer.0, 200);
    }
    gate
}

async fn used(gate: &TestApp) -> u64 {
    let used = gate.manage("/quota/daily?key=user_1").await;
    assert_eq!(used.status, 200, "{used:?}");
    used.json["used"].as_u64().unwrap()
}

/// If an answer is lost, the operation may have counted, so it is not repeated. A read is repeated.
async fn an_operation_that_may_have_counted_is_not_repeated(server: impl Server) {
    let proxy = TcpProxy::before(server.port());
    let url = &server.url_at(proxy.port());
    let gate = used_before(url).await;
    proxy.lose_an_answer();
    assert_eq!(ask_as(&gate, "user_1").await.0, 500);
    assert!(proxy.has_lost_it());
    assert_eq!(used(&gate).await, 9);
    assert!(is_up(&gate, "shared").await);
    assert_eq!(ask_as(&gate, "user_1").await.0, 200);
    assert_eq!(used(&gate).await, 10);

    let gate = used_before(url).await;
    assert_eq!(used(&gate).await, 18);
    proxy.lose_an_answer();
    assert_eq!(used(&gate).await, 18);
    assert!(proxy.has_lost_it());
}

#[actix_web::test]
async fn a_lookup_is_repeated_if_its_kept_connection_breaks() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server.run(MEMBERS).await;
    let proxy = TcpProxy::before(server.port());
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let gate = asking(&url, QUERY)
        .set("stores.app.timeout", "10s")
        .start()
        .await;
    ready(&gate).await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    proxy.lose_an_answer();
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    assert!(proxy.has_lost_it());
}

#[actix_web::test]
async fn a_locked_counter_in_postgresql_is_a_fault_only_for_its_user() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let gate = quota_of_users(&server.url()).set("stores.shared.timeout", "2s");
    let gate = gate.start().await;
    ready(&gate).await;
    for number in 0..10 {
        assert_eq!(ask_as(&gate, &format!("user_{number}")).await.0, 200);
    }
    let lock = server
        .hold("select from imgwire_gate.quota where key = 'user_1' for update")
        .await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let users = (0..10).map(async |number| ask_as(&gate, &format!("user_{number}")).await);
        for (number, (status, took)) in join_all(users).await.into_iter().enumerate() {
            assert_eq!(
                status,
                if number == 1 { 500 } else { 200 },
                "user_{number} {took:?}"
            );
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
        assert!(is_up(&gate, "shared").await);
    }
    drop(lock);
    eventually("the counter", async || {
        ask_as(&gate, "user_1").await.0 == 200
    })
    .await;
}

#[actix_web::test]
async fn a_counter_that_sqlite_cannot_read_is_a_fault_only_for_its_request() {
    let monthly = quota().per(["user"]).limit(1000).window("month");
    let gate = Gate::accepting(["app"])
        .policy("quota", monthly)
        .chain(["signed-in", "quota"]);
    let gate = Watched::start(&gate).await;
    assert_eq!(gate.ask().await, 200);
    // Another process drops the table, and the gate creates it again.
    let database = rusqlite::Connection::open(gate.folder.path().join("gate.db")).unwrap();
    database.execute_batch("DROP TABLE quota_counters").unwrap();
    assert_eq!(gate.ask_as("user_2").await, 500);
    assert!(gate.is_ready().await);
    for user in ["user_1", "user_2", "user_3"] {
        assert_eq!(gate.ask_as(user).await, 200, "{user}");
    }
    gate.was_never_down();
}
