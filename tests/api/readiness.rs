//! A gate is ready as long as it can serve the requests of every route.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    deployment::deploy,
    helpers::{
        Emulator, Entry, Gate, TestApp, Token, eventually, published_jwt, quota, rate_limit,
        signed_in, workspace_member,
    },
    process::GateProcess,
    real_parts::{Running, are_here, free_port},
    redis_server::Redis,
};

const NOWHERE: &str = "http://127.0.0.1:1/keys";

/// The state of the gate as soon as it knows that the store `shared` and the keys of `idp` are down.
async fn state(gate: &TestApp) -> (u16, Value, Value) {
    eventually("all states", async || {
        let metrics = gate.manage("/metrics").await.text;
        !metrics.contains("imgwire_gate_store_up{store=\"shared\"} 1")
            && !metrics.contains("imgwire_gate_identity_keys_stale{identity=\"idp\"} 0")
    })
    .await;
    let ready = gate.manage("/readyz").await;
    let parts = |key: &str| match &ready.json[key] {
        Value::Null => json!([]),
        parts => parts.clone(),
    };
    let status = if ready.status == 200 {
        "ready"
    } else {
        "failing"
    };
    assert_eq!(ready.json["status"], status);
    (ready.status.as_u16(), parts("failing"), parts("degraded"))
}

fn failing(part: &str) -> (u16, Value, Value) {
    (503, json!([part]), json!([]))
}

fn degraded(part: &str) -> (u16, Value, Value) {
    (200, json!([]), json!([part]))
}

fn ready() -> (u16, Value, Value) {
    (200, json!([]), json!([]))
}

/// A gate with a Redis that is down.
fn without_redis() -> Gate {
    Gate::accepting(["app"]).store(
        "shared",
        json!({ "url": format!("redis://127.0.0.1:{}", free_port()) }),
    )
}

fn limit() -> Entry {
    rate_limit().per(["user"]).limit(5).store("shared")
}

fn daily() -> Entry {
    quota().per(["user"]).limit(5).store("shared")
}

/// The route has this policy.
fn with(policy: Entry) -> Gate {
    without_redis()
        .policy("policy", policy)
        .chain(["signed-in", "policy"])
}

#[actix_web::test]
async fn a_store_fails_the_gate_only_if_a_route_needs_it_and_nothing_covers_it() {
    let part = "stores.shared";
    let cases = [
        (with(limit()), failing(part)),
        (with(limit().set("on_failure", "deny")), failing(part)),
        (with(limit().set("on_failure", "local")), degraded(part)),
        (with(limit().set("on_failure", "allow")), degraded(part)),
        (with(limit().observe()), degraded(part)),
        (with(daily()), failing(part)),
        (with(daily().set("on_failure", "allow")), degraded(part)),
        (with(daily().observe()), degraded(part)),
        (
            with(daily().set("when", "request.purpose == 'a'")),
            failing(part),
        ),
        // No route has the policy.
        (without_redis().policy("policy", limit()), ready()),
        // No policy uses the store.
        (without_redis(), ready()),
        // One policy is covered and another is not.
        (
            with(limit().set("on_failure", "local"))
                .policy("daily", daily())
                .chain(["signed-in", "policy", "daily"]),
            failing(part),
        ),
        // One route of two needs it.
        (
            with(limit().set("on_failure", "local"))
                .policy("daily", daily())
                .route("/other", ["signed-in", "daily"]),
            failing(part),
        ),
    ];
    for (gate, expected) in cases {
        let case = gate.config("", std::path::Path::new(""));
        let gate = gate.start().await;
        let is_served = gate.ask_as(&Token::of("user_1")).await.status == 200;
        assert_eq!(state(&gate).await, expected, "{case}");
        // The usual route is served, or the gate is not ready.
        assert!(is_served || expected.0 == 503, "{case}");
    }
}

#[actix_web::test]
async fn a_cached_membership_does_not_cover_its_database() {
    let query = "select role from members where user_id = $1 and workspace_id = $2";
    let database = format!("postgres://gate@127.0.0.1:{}/gate", free_port());
    let member = workspace_member()
        .set("store", "shared")
        .set("query", query)
        .set("cache", "1h");
    let gate = Gate::accepting(["app"])
        .store("shared", json!({ "url": database }))
        .policy("member", member)
        .chain(["signed-in", "member"])
        .start()
        .await;
    assert_eq!(state(&gate).await, failing("stores.shared"));
}

#[actix_web::test]
async fn a_session_store_counts_only_if_a_route_accepts_sessions() {
    let sessions = || without_redis().session("store", "shared");
    let gate = sessions().start().await;
    assert_eq!(state(&gate).await, ready());
    let gate = sessions().policy("signed-in", signed_in(["app", "browser"]));
    assert_eq!(state(&gate.start().await).await, failing("stores.shared"));
}

/// A gate whose `idp` has no keys, with these identities on its route.
fn accepting<const N: usize>(identities: [&str; N]) -> Gate {
    Gate::accepting(identities.to_vec()).identity("idp", published_jwt(["RS256"], NOWHERE))
}

#[actix_web::test]
async fn keys_fail_the_gate_only_if_a_route_has_no_other_usable_identity() {
    let part = "identities.idp";
    let another = |gate: Gate| gate.identity("idp2", published_jwt(["ES256"], NOWHERE));
    let cases = [
        (accepting(["idp"]), failing(part)),
        (accepting(["app", "idp"]), degraded(part)),
        (accepting(["idp", "app"]), degraded(part)),
        (accepting(["app"]), ready()),
        // A session that has started is valid without the issuer.
        (accepting(["browser"]).exchange(["idp"]), degraded(part)),
        (
            accepting(["app", "browser"]).exchange(["app", "idp"]),
            degraded(part),
        ),
        (
            accepting(["idp", "browser"]).exchange(["idp"]),
            degraded(part),
        ),
        // Only a session identity that no route accepts needs it.
        (accepting(["app"]).exchange(["app", "idp"]), ready()),
        // One route of two has nothing else.
        (
            accepting(["app", "idp"])
                .policy("by-idp", signed_in(["idp"]))
                .route("/other", ["by-idp"]),
            failing(part),
        ),
        (
            another(accepting(["idp", "idp2"])),
            (503, json!([part, "identities.idp2"]), json!([])),
        ),
        (
            another(accepting(["idp", "idp2"]))
                .policy("signed-in", signed_in(["idp", "idp2", "app"])),
            (200, json!([]), json!([part, "identities.idp2"])),
        ),
    ];
    for (gate, expected) in cases {
        let case = gate.config("", std::path::Path::new(""));
        let gate = gate.start().await;
        let parts = expected.1.as_array().unwrap().len() + expected.2.as_array().unwrap().len();
        if parts == 2 {
            eventually("the second issuer", async || {
                let metrics = gate.manage("/metrics").await.text;
                metrics.contains("keys_stale{identity=\"idp2\"} 1")
            })
            .await;
        }
        assert_eq!(state(&gate).await, expected, "{case}");
    }
}

#[actix_web::test]
async fn sessions_in_a_store_that_is_down_are_no_other_identity() {
    let gate = accepting(["idp", "browser"])
        .exchange(["idp"])
        .store(
            "shared",
            json!({ "url": format!("redis://127.0.0.1:{}", free_port()) }),
        )
        .session("store", "shared");
    let expected = (503, json!(["stores.shared", "identities.idp"]), json!([]));
    assert_eq!(state(&gate.start().await).await, expected);
}

#[actix_web::test]
async fn a_reload_changes_what_counts() {
    let gate = with(limit()).start().await;
    assert_eq!(state(&gate).await, failing("stores.shared"));
    gate.reload(&with(limit().set("on_failure", "local")))
        .unwrap();
    assert_eq!(state(&gate).await, degraded("stores.shared"));
    gate.reload(&without_redis()).unwrap();
    assert_eq!(gate.manage("/readyz").await.status, 200);
}

/// The gates stay behind HAProxy, whose health check is `/readyz`, while Redis is down and each gate counts for itself.
#[actix_web::test]
async fn haproxy_keeps_gates_that_count_for_themselves() {
    if !are_here(&["haproxy", "redis-server"]) {
        return;
    }
    let mut redis = Redis::here().unwrap();
    let imgwire = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (port, management, proxy) = (free_port(), free_port(), free_port());
    let mut gates = Vec::new();
    for number in 1..=3 {
        let limit = rate_limit().per(["user"]).limit(1000).store("shared");
        let config = Gate::accepting(["app"])
            .server("bind", format!("127.0.0.{number}:{port}"))
            .management("bind", format!("127.0.0.{number}:{management}"))
            .store(
                "shared",
                json!({ "url": format!("redis://{}", redis.address()) }),
            )
            .policy("burst", limit.set("on_failure", "local"))
            .chain(["signed-in", "burst"])
            .config(imgwire.url(), folder.path());
        let path = folder.path().join(format!("gate-{number}.toml"));
        fs::write(&path, config).unwrap();
        gates.push(GateProcess::start(&path, &[], "info").await);
    }
    let text = fs::read_to_string(deploy("haproxy.cfg")).unwrap();
    let mut text = text
        .replace("bind :80\n", &format!("bind 127.0.0.1:{proxy}\n"))
        .replace("9090", &management.to_string());
    for number in 1..=3 {
        let name = format!("gate-{number}:8080");
        text = text.replace(&name, &format!("127.0.0.{number}:{port}"));
    }
    let config = folder.path().join("haproxy");
    fs::write(&config, text).unwrap();
    let _haproxy = Running::start("haproxy", &["-db", "-f", config.to_str().unwrap()], &config);
    let url = format!("http://127.0.0.1:{proxy}");
    let token = Token::of("user_1").sign();
    eventually("the proxy", async || {
        GateProcess::ask_at(&url, &token).await == Some(200)
    })
    .await;
    redis.go_down();
    eventually("the outage in all gates", async || {
        GateProcess::ask_at(&url, &token).await;
        gates
            .iter()
            .all(|gate| gate.log().contains("the store is down"))
    })
    .await;
    // Longer than three health checks.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(GateProcess::ask_at(&url, &token).await, Some(200));
    }
    for gate in &gates {
        let served = gate.decisions().len();
        assert!(served > 1, "{}", gate.log());
    }
}
