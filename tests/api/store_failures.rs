//! An operation of a store that is slow or fails is a fault of its request: the store stays up, and others are served.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    backends::{Server, suite},
    helpers::{Recipe, TestApp, Token, eventually},
    members::{MEMBERS, QUERY, ask_for, asking},
    postgres::Postgres,
    redis_server::Redis,
    scaling::{counting, patient, ready},
    tcp_proxy::TcpProxy,
    watched::Watched,
};

suite! {
    [what_a_server_may_have_counted_is_not_asked_again,]:
    in_a_redis: Redis,
    in_a_postgresql: Postgres,
}

/// A quota of each user.
pub(crate) fn quota_of_users(url: &str) -> Recipe {
    let policies = r#"
        [policies.daily]
        kind = "quota"
        per = ["user"]
        limit = 1000
        window = "day"
        store = "shared"
    "#;
    counting(url, policies, "[\"signed-in\", \"daily\"]")
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
async fn a_key_of_another_type_is_a_fault_of_its_user_alone() {
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
        // Nor is the server probed for each of them.
        let connected = connections() - connected;
        assert!(connected < 20, "{connected} connections");
    }
}

#[actix_web::test]
async fn what_a_postgresql_refuses_of_one_user_is_counted_for_the_others_who_ask_at_the_same_time()
{
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server
        .run("create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'")
        .await;
    let url = server
        .url()
        .replace("/postgres", "/latin")
        .replace("//latin", "//postgres");
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

/// A gate whose connections were all used.
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

/// An answer that is lost on the way may have been to something that was counted, so it is not asked again; what only
/// reads is.
async fn what_a_server_may_have_counted_is_not_asked_again(server: impl Server) {
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
async fn a_lookup_whose_kept_connection_breaks_is_repeated() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    server.run(MEMBERS).await;
    let proxy = TcpProxy::before(server.port());
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let gate = patient(asking(&url, QUERY, "")).start().await;
    ready(&gate).await;
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    proxy.lose_an_answer();
    ask_for(&gate, "user_1", "ws_1").await.assert_token();
    assert!(proxy.has_lost_it());
}

#[actix_web::test]
async fn a_counter_that_somebody_has_locked_in_a_postgresql_is_a_fault_of_its_user_alone() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let recipe = quota_of_users(&server.url());
    let more = recipe.more.replace("500ms", "2s");
    let gate = Recipe { more, ..recipe }.start().await;
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
async fn a_counter_that_cannot_be_read_from_a_file_is_a_fault_of_its_request_alone() {
    let policies = r#"
        [policies.signed-in]
        kind = "signed_in"
        accept = ["app"]
        [policies.quota]
        kind = "quota"
        per = ["user"]
        limit = 1000
        window = "month"
        store = "main"
    "#;
    let recipe = Recipe {
        policies: policies.to_owned(),
        chain: "[\"signed-in\", \"quota\"]".to_owned(),
        ..Recipe::default()
    };
    let gate = Watched::start(&recipe).await;
    assert_eq!(gate.ask().await, 200);
    // Another process takes the table away, and the gate makes it again.
    let database = rusqlite::Connection::open(gate.folder.path().join("gate.db")).unwrap();
    database.execute_batch("DROP TABLE quota_counters").unwrap();
    assert_eq!(gate.ask_as("user_2").await, 500);
    assert!(gate.is_ready().await);
    for user in ["user_1", "user_2", "user_3"] {
        assert_eq!(gate.ask_as(user).await, 200, "{user}");
    }
    gate.was_never_down();
}
