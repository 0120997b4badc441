//! Ways to reach a shared store: TLS, users, sockets, Sentinels, clusters, failover; and sessions in Redis.

use std::process::Command;

use actix_web::http::Method;
use serde_json::json;

use crate::{
    helpers::{self, Gate, SESSION, TestApp, Token, env, eventually, rate_limit, signed_in},
    postgres::Postgres,
    real_parts::{are_here, blocks, free_port},
    redis_server::Redis,
    scaling::{counting, patient, quota, ready},
};

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// A rate limit, a quota and the sessions, all in the store at `url`.
pub(crate) fn everything(url: &str) -> Gate {
    let burst = rate_limit().per(["user"]).limit(100);
    patient(counting(url))
        .policy("signed-in", signed_in(["app", "browser"]))
        .policy("burst", burst.store("shared"))
        .policy(
            "daily",
            helpers::quota().per(["user"]).limit(3).store("shared"),
        )
        .chain(["signed-in", "burst", "daily"])
        .session("store", "shared")
}

/// The gate counts and keeps a session in its store.
pub(crate) async fn works(gate: &TestApp) {
    ready(gate).await;
    let token = Token::of("user_1").sign();
    let answer = gate.request(Method::POST, SESSION).bearer(&token);
    let answer = answer.send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let ask = || gate.ask().header("cookie", answer.cookie()).send();
    for expected in [200, 200, 200, 429] {
        assert_eq!(ask().await.status, expected);
    }
}

#[actix_web::test]
async fn redis_is_reached_by_tls_as_a_user_with_a_password_and_a_database() {
    if !are_here(&["redis-server", "openssl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-keyout", &file("key.pem"), "-out", &file("cert.pem")])
        .args([
            "-subj",
            "/CN=cache",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let tls_port = free_port();
    let server = Redis::start(
        free_port(),
        &[
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &file("cert.pem"),
            "--tls-key-file",
            &file("key.pem"),
            "--tls-ca-cert-file",
            &file("cert.pem"),
            "--tls-auth-clients",
            "no",
        ],
    );
    // The user of the documentation.
    let [acl, _] = &blocks("docs/scaling.md", "text")[..] else {
        panic!("two blocks")
    };
    let words: Vec<_> = acl.split_whitespace().collect();
    assert_eq!(server.run(&words), "OK");
    let url = format!("rediss://gate@127.0.0.1:{tls_port}/5");
    let builder = |password: &str| {
        everything(&url)
            .set("stores.shared.password", env("PASSWORD"))
            .secret("PASSWORD", password)
    };
    let trusting = |password: &str| builder(password).set("outbound.ca", file("cert.pem"));
    works(&trusting("a-password").start().await).await;
    assert!(server.run(&["INFO", "keyspace"]).contains("db5:keys="));

    // An untrusted certificate and a wrong password are faults.
    for gate in [builder("a-password"), trusting("another")] {
        let gate = gate.start().await;
        assert_eq!(status(&gate).await, 500);
        assert_eq!(gate.manage("/readyz").await.status, 503);
    }
}

#[actix_web::test]
async fn redis_is_reached_by_a_socket() {
    let Some(server) = Redis::here_with(&["--unixsocket", "redis.sock"]) else {
        return;
    };
    let socket = server.folder().join("redis.sock");
    let url = format!("redis+unix://{}", socket.display());
    works(&everything(&url).start().await).await;
}

#[actix_web::test]
async fn postgresql_is_reached_by_a_socket() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let gate = quota(&server.url_of_socket(), 1, "day").start().await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 429);
}

#[actix_web::test]
async fn a_cluster_counts_keys_on_every_node() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let url = format!("redis+cluster://{}", nodes[0].address());
    let gate = everything(&url).start().await;
    works(&gate).await;
    for number in 0..30 {
        let answer = gate.ask_as(&Token::of(&format!("user_{number}"))).await;
        assert_eq!(answer.status, if number == 1 { 429 } else { 200 });
    }
    for node in &nodes {
        assert!(!node.keys().is_empty());
    }
}

#[actix_web::test]
async fn a_killed_postgresql_is_replaced_by_its_replica() {
    let Some(primary) = Postgres::here() else {
        return;
    };
    let mut primary = primary.await;
    let replica = primary.replica().await;
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        replica.port()
    );
    let gate = quota(&url, 5, "day").start().await;
    ready(&gate).await;
    assert_eq!(status(&gate).await, 200);
    assert_eq!(status(&gate).await, 200);
    let written = primary.text("select pg_current_wal_lsn()::text").await;
    let has = format!("select (pg_last_wal_replay_lsn() >= '{written}')::int::bigint");
    eventually("the replica", async || replica.number(&has).await == 1).await;
    primary.go_down();
    assert_eq!(status(&gate).await, 500);
    replica.run("select pg_promote()").await;
    let mut issued = 0;
    eventually("the failover", async || {
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
async fn a_session_in_redis_is_valid_at_all_gates_until_it_is_ended() {
    let Some(mut server) = Redis::here() else {
        return;
    };
    let gates = [
        everything(&server.url()).start().await,
        everything(&server.url()).start().await,
    ];
    for gate in &gates {
        ready(gate).await;
    }
    let token = Token::of("user_1").sign();
    let sign_in = gates[0].request(Method::POST, SESSION).bearer(&token);
    let signed_in = sign_in.send().await;
    let cookie = signed_in.cookie();
    assert!(signed_in.header("set-cookie").contains("HttpOnly"));
    let show = async |gate: &TestApp| {
        let shown = gate.request(Method::GET, SESSION).header("cookie", cookie);
        shown.send().await
    };
    for gate in &gates {
        assert_eq!(show(gate).await.json["subject"], json!("user_1"));
    }
    // The names of the keys reveal neither the subject nor the session's key, and the keys expire.
    let keys = server.keys();
    let [key] = &keys
        .iter()
        .filter(|key| key.contains(":session:"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("{keys:?}")
    };
    assert!(!key.contains("user_1"));
    let left: i64 = server.run(&["PTTL", key]).parse().unwrap();
    let hour = 3_600_000;
    assert!((11 * hour..=12 * hour).contains(&left), "{left}");

    // A sign-in with a session replaces it.
    let again = gates[1].request(Method::POST, SESSION).bearer(&token);
    let again = again.header("cookie", cookie).send().await;
    assert_ne!(again.cookie(), cookie);
    assert_eq!(show(&gates[0]).await.status, 401);

    // A server that is down is a fault, and signs no user out.
    let cookie = again.cookie();
    let show = async |gate: &TestApp| {
        let shown = gate.request(Method::GET, SESSION).header("cookie", cookie);
        shown.send().await
    };
    server.go_down();
    show(&gates[0]).await.assert_error(500, "internal");
    server.come_up();
    ready(&gates[0]).await;
    assert_eq!(show(&gates[0]).await.status, 200);

    // A session that ends at one gate ends at the other, even for a client that kept the cookie.
    let end = gates[0]
        .request(Method::DELETE, SESSION)
        .header("cookie", cookie);
    assert_eq!(end.send().await.status, 204);
    for gate in &gates {
        assert_eq!(show(gate).await.status, 401);
    }
    assert!(!server.keys().iter().any(|key| key.contains(":session:")));
}
