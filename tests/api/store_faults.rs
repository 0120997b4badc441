//! A shared store that hangs, is down, or has lost its data.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    backends::{Server, suite},
    helpers::{self, TestApp, Token, eventually, rate_limit, workspace_member},
    postgres::Postgres,
    redis_server::Redis,
    scaling::{counting, limit, patient, quota, ready},
    tcp_proxy::TcpProxy,
};

suite! {
    [
        a_server_that_hangs_costs_each_request_at_most_one_timeout,
        a_gate_starts_without_its_server,
        a_restart_of_an_idle_server_costs_no_request,
    ]:
    in_redis: Redis,
    in_postgresql: Postgres,
}

/// The timeout of the tests' stores, and an allowance for a busy machine.
const TIMEOUT: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_millis(250);

async fn ask(gate: &TestApp) -> (u16, Duration) {
    let began = Instant::now();
    let answer = gate.ask_as(&Token::of("user_1")).await;
    if answer.status == 500 {
        answer.assert_error(500, "internal");
    }
    (answer.status.as_u16(), began.elapsed())
}

/// A store that hangs costs each running request one timeout and later requests nothing, and is used again when it
/// returns.
async fn a_server_that_hangs_costs_each_request_at_most_one_timeout(server: impl Server) {
    let (url, hang) = server.hanging();
    let gate = quota(&url, 1000, "month").start().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 200);
    hang(true);
    let first = join_all((0..300).map(|_| ask(&gate))).await;
    for (status, took) in first {
        assert_eq!(status, 500);
        assert!(took < TIMEOUT * 2, "{took:?}");
    }
    // No request waits any more.
    assert_eq!(gate.metric("imgwire_gate_in_flight").await, 0.0);
    for _ in 0..20 {
        let (status, took) = ask(&gate).await;
        assert_eq!(status, 500);
        assert!(took < SOON, "{took:?}");
    }
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert_eq!(readiness.json["failing"][0], "stores.shared");
    let up = "imgwire_gate_store_up{store=\"shared\"}";
    assert_eq!(gate.metric(up).await, 0.0);
    hang(false);
    eventually("its return", async || ask(&gate).await.0 == 200).await;
    assert_eq!(gate.manage("/readyz").await.status, 200);
    assert_eq!(gate.metric(up).await, 1.0);
    assert!(operations(&gate, "fault").await >= 1.0);
    assert!(operations(&gate, "").await >= 2.0);
}

async fn operations(gate: &TestApp, error_type: &str) -> f64 {
    let page = gate.manage("/metrics").await.text;
    let counts = page.lines().filter(|line| {
        line.starts_with("db_client_operation_duration_seconds_count{")
            && line.contains("db_operation_name=\"reserve\"")
            && line.contains("store=\"shared\"")
            && line.contains(&format!("error_type=\"{error_type}\""))
    });
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum()
}

/// A gate starts without its store, is not ready, and uses the store as soon as it is up.
async fn a_gate_starts_without_its_server(mut server: impl Server) {
    server.go_down();
    let gate = quota(&server.url(), 10, "day").start().await;
    assert_eq!(ask(&gate).await.0, 500);
    let readiness = gate.manage("/readyz").await;
    assert_eq!(readiness.json["failing"][0], "stores.shared");
    server.come_up().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 200);
}

async fn a_restart_of_an_idle_server_costs_no_request(mut server: impl Server) {
    let builder = quota(&server.url(), 100, "day");
    let gate = patient(builder).start().await;
    ready(&gate).await;
    for answer in join_all((0..8).map(|_| ask(&gate))).await {
        assert_eq!(answer.0, 200);
    }
    server.go_down();
    server.come_up().await;
    for answer in join_all((0..8).map(|_| ask(&gate))).await {
        assert_eq!(answer.0, 200);
    }
}

async fn tolerated(gate: &TestApp, policy: &str) -> f64 {
    let route = crate::helpers::ROUTE;
    let line = format!(
        "imgwire_gate_decisions_total{{route=\"{route}\",outcome=\"fault_tolerated\",policy=\"{policy}\",code=\"internal\"}}"
    );
    gate.metric(&line).await
}

#[actix_web::test]
async fn a_rate_limit_without_its_store_denies_allows_or_counts_locally_as_configured() {
    let Some(mut server) = Redis::here() else {
        return;
    };
    let with = |on_failure: &str| {
        let settings = rate_limit().limit(3).on_failure(on_failure);
        limit(&server.url(), settings).start()
    };
    let (deny, allow, local) = (with("deny").await, with("allow").await, with("local").await);
    for gate in [&deny, &allow, &local] {
        ready(gate).await;
    }
    // All gates share one counter while the store is up.
    assert_eq!(ask(&local).await.0, 200);
    assert_eq!(ask(&allow).await.0, 200);
    server.go_down();
    let mut said = Vec::new();
    for gate in [&deny, &allow, &local] {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(ask(gate).await.0);
        }
        said.push(statuses);
    }
    assert_eq!(said[0], [500; 5]);
    assert_eq!(said[1], [200; 5]);
    assert_eq!(said[2], [200, 200, 200, 429, 429]);
    assert_eq!(tolerated(&allow, "shared-limit").await, 5.0);
    assert_eq!(tolerated(&local, "shared-limit").await, 5.0);
    server.come_up();
    for gate in [&deny, &allow, &local] {
        // A gate is ready without the store if `on_failure` covers it.
        eventually("the store", async || {
            gate.manage("/readyz").await.json == json!({ "status": "ready", "degraded": [] })
        })
        .await;
    }
    // They share the counter again, which has two of three attempts.
    assert_eq!(ask(&local).await.0, 200);
    assert_eq!(ask(&deny).await.0, 429);
    assert_eq!(ask(&allow).await.0, 429);
}

#[actix_web::test]
async fn a_quota_without_its_store_allows_requests_if_configured() {
    let Some(mut server) = Redis::here() else {
        return;
    };
    let gate = quota(&server.url(), 1, "day").set("policies.shared-quota.on_failure", "allow");
    let gate = gate.start().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(ask(&gate).await.0, 429);
    server.go_down();
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(tolerated(&gate, "shared-quota").await, 1.0);
}

#[actix_web::test]
async fn a_redis_without_its_data_counts_from_zero() {
    let Some(server) = Redis::here() else { return };
    let gate = quota(&server.url(), 1, "day").start().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(ask(&gate).await.0, 429);
    server.run(&["FLUSHALL"]);
    assert_eq!(ask(&gate).await.0, 200);
    assert_eq!(ask(&gate).await.0, 429);
    // A server that lost its scripts gets them again.
    server.run(&["SCRIPT", "FLUSH"]);
    assert_eq!(ask(&gate).await.0, 429);
}

#[actix_web::test]
async fn a_limit_and_a_quota_in_one_redis_take_two_commands_and_one_round_trip() {
    let Some(server) = Redis::here() else { return };
    let proxy = TcpProxy::before(server.port());
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let builder = counting(&url)
        .policy(
            "burst",
            rate_limit().per(["user"]).limit(25).store("shared"),
        )
        .policy(
            "daily",
            helpers::quota().per(["user"]).limit(1000).store("shared"),
        )
        .chain(["signed-in", "burst", "daily"]);
    let gate = patient(builder).start().await;
    ready(&gate).await;
    // Both workers have a connection, and the server has the scripts.
    for answer in join_all((0..16).map(|_| ask(&gate))).await {
        assert_eq!(answer.0, 200);
    }
    let (sent, calls) = (proxy.sent(), server.calls("evalsha"));
    for _ in 0..9 {
        assert_eq!(ask(&gate).await.0, 200);
    }
    assert_eq!(proxy.sent() - sent, 9, "round trips");
    assert_eq!(server.calls("evalsha") - calls, 18, "commands");
    assert_eq!(server.calls("eval"), 0);

    // If the limit refuses a request, the reservation of the quota is released.
    let answer = gate.ask_as(&Token::of("user_1")).await;
    answer.assert_error(429, "rate_limited");
    let used = gate.manage("/quota/daily?key=user_1").await;
    assert_eq!(used.json["used"], 25);

    // Concurrent operations share round trips, and every counter expires.
    let sent = proxy.sent();
    let asked = (0..200).map(|number| {
        let token = Token::of(&format!("user_{number}"));
        let gate = &gate;
        async move { gate.ask_as(&token).await.status.as_u16() }
    });
    assert!(join_all(asked).await.contains(&200));
    assert!(proxy.sent() - sent < 200, "{}", proxy.sent() - sent);
    for key in server.keys().iter().filter(|key| key.contains(":quota:")) {
        let left: i64 = server.run(&["PTTL", key]).parse().unwrap();
        let day = 24 * 60 * 60 * 1000;
        assert!((day..=4 * day).contains(&left), "{left}");
    }
}

#[actix_web::test]
async fn concurrent_reservations_share_a_commit_of_postgresql() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let by_plan = json!({ "claim": "plan", "values": { "free": 5, "pro": 50 }, "default": 0 });
    let daily = helpers::quota().per(["workspace"]).limit(by_plan);
    let builder = counting(&server.url())
        .policy("daily", daily.store("shared"))
        .policy("member", workspace_member().claim("workspaces"))
        .chain(["signed-in", "member", "daily"]);
    let gate = patient(builder).start().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 429, "no plan, no token");
    let commits = "select xact_commit from pg_stat_database where datname = 'postgres'";
    let before = server.number(commits).await;
    // Two plans share one counter, so each reservation depends on the other plan's.
    let asked = (0..120).map(async |number| {
        let plan = if number % 2 == 0 { "pro" } else { "free" };
        let token = Token::of("user_1").with("plan", plan.into());
        (plan, gate.ask_as(&token).await.status.as_u16())
    });
    let answers = join_all(asked).await;
    let issued = |wanted| {
        let issued = answers.iter().filter(|answer| **answer == (wanted, 200));
        issued.count()
    };
    assert_eq!(issued("pro") + issued("free"), 50);
    assert!(issued("free") <= 5);
    let mut commits_took = 0;
    eventually("the statistics", async || {
        commits_took = server.number(commits).await - before;
        commits_took > 0
    })
    .await;
    assert!(
        commits_took < 100,
        "{commits_took} commits for 120 requests"
    );
}

#[actix_web::test]
async fn gates_that_start_together_create_the_tables_once_and_a_role_without_rights_needs_them() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    // The statements of the documentation for the administrator.
    for statement in crate::real_parts::blocks("docs/scaling.md", "sql") {
        server.run(&statement).await;
    }
    let gates = join_all((0..8).map(|_| quota(&server.url_of("gate"), 3, "day").start())).await;
    for gate in &gates {
        ready(gate).await;
    }
    assert_eq!(
        server
            .number("select count(*) from imgwire_gate.migration")
            .await,
        4,
        "each migration was applied once"
    );
    assert_eq!(ask(&gates[0]).await.0, 200);

    // A role that may only count.
    server
        .run(
            "create role counter login;
             grant usage on schema imgwire_gate to counter;
             grant select on imgwire_gate.migration to counter;
             grant select, insert, update on imgwire_gate.quota to counter;",
        )
        .await;
    let gate = quota(&server.url_of("counter"), 3, "day").start().await;
    ready(&gate).await;
    assert_eq!(ask(&gate).await.0, 200);
    // The role can do nothing else with the tables.
    server.run("drop schema imgwire_gate cascade").await;
    let gate = quota(&server.url_of("counter"), 3, "day").start().await;
    assert_eq!(ask(&gate).await.0, 500);
    assert_eq!(gate.manage("/readyz").await.status, 503);
}
