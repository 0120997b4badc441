//! Bounds of what clients can make the gate keep in memory: claims, caches and request heads.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    helpers::{
        Emulator, Gate, ROUTE, TestApp, Token, env, eventually, expression, forwarded,
        introspection, remote_session,
    },
    process::{GateProcess, write_config},
    secret_values::{GOOD, fault, gate, status},
    service::{Reply, Service},
};

/// A gate whose rule reads the claim `metadata`, with each kind of identity that caches claims.
fn builder(app: &Service) -> Gate {
    let opaque = introspection(&format!("{}/introspect", app.url));
    let site = remote_session(
        &format!("{}/session", app.url),
        ["header:x-app-key"],
        "/sub",
    );
    let claims = json!({ "metadata": "/metadata", "other": "/other" });
    Gate::accepting(["app", "opaque", "site"])
        .server("failures", json!({ "limit": 1_000_000, "period": "1m" }))
        .identity("opaque", opaque.from(["header:x-opaque"]).cache("1h"))
        .identity("site", site.claims(claims).cache("1h"))
        .policy("rule", expression("subject.claims.metadata != null"))
        .chain(["signed-in", "rule"])
}

/// The answer of an issuer or an app about a user with these claims.
fn says(metadata: &Value, other: &Value) -> Reply {
    Reply::json(&json!({
        "active": true, "sub": "user_1", "metadata": metadata, "other": other,
    }))
}

/// A value with this many levels of nesting.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| {
        if level % 2 == 0 {
            json!([inner])
        } else {
            json!({ "a": inner })
        }
    })
}

/// Objects, each of which takes much more memory than its text.
fn objects(count: usize) -> Value {
    vec![json!({ "a": 0 }); count].into()
}

/// The answers to the same user with each kind of identity.
async fn by_each(
    gate: &TestApp,
    app: &Service,
    metadata: &Value,
    other: &Value,
) -> Vec<crate::helpers::Answer> {
    app.answer("/introspect", says(metadata, other));
    app.answer("/session", says(metadata, other));
    let token = Token::of("user_1").with("metadata", metadata.clone());
    let token = token.with("other", other.clone()).sign();
    let key = fastrand::u64(..).to_string();
    vec![
        gate.ask().bearer(&token).send().await,
        gate.ask().header("x-opaque", &key).send().await,
        gate.ask().header("x-app-key", &key).send().await,
    ]
}

#[actix_web::test]
async fn claims_that_policies_read_are_bounded_in_nesting_and_size() {
    let app = Service::start();
    let gate = builder(&app).start().await;
    let small = json!({ "plan": "pro" });
    for good in [&small, &nested(16), &objects(100), &json!(vec!["a"; 900])] {
        for answer in by_each(&gate, &app, good, &small).await {
            answer.assert_token();
        }
    }
    for bad in [
        &nested(17),
        &nested(60),
        &objects(300),
        &json!(vec![json!([[1]]); 900]),
    ] {
        for answer in by_each(&gate, &app, bad, &small).await {
            answer.assert_error(401, "invalid_credentials");
        }
        // A claim that no policy reads does not count.
        for answer in by_each(&gate, &app, &small, bad).await {
            answer.assert_token();
        }
    }
}

#[actix_web::test]
async fn the_log_names_the_claim_that_exceeds_the_bounds() {
    let app = Service::start();
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&builder(&app), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let bad = [
        (
            nested(17),
            "the claim `metadata` is nested deeper than 16 levels",
        ),
        (
            objects(300),
            "the claims that policies read take more than 128 KiB of memory",
        ),
    ];
    for (metadata, _) in &bad {
        let token = Token::of("user_1")
            .with("metadata", metadata.clone())
            .sign();
        assert_eq!(gate.ask(&token).await, Some(401));
    }
    crate::helpers::eventually("the lines", async || gate.decisions().len() == 2).await;
    for (line, (_, reason)) in gate.decisions().iter().zip(bad) {
        assert_eq!(
            line["reason"],
            format!("identity `app`: {reason}"),
            "{line}"
        );
    }
}

#[actix_web::test]
async fn a_policy_that_reads_another_claim_after_a_reload_finds_it_in_cached_tokens() {
    let app = Service::start();
    let gate = builder(&app).start().await;
    let (metadata, other) = (json!("x"), json!("y"));
    app.answer("/introspect", says(&metadata, &other));
    app.answer("/session", says(&metadata, &other));
    let token = Token::of("user_1").with("metadata", metadata.clone());
    let token = token.with("other", other.clone()).sign();
    let ask = async || {
        [
            gate.ask().bearer(&token).send().await,
            gate.ask().header("x-opaque", "o").send().await,
            gate.ask().header("x-app-key", "k").send().await,
        ]
    };
    ask().await.iter().for_each(|answer| answer.assert_token());
    for (rule, is_allowed) in [
        (
            "subject.claims.other == 'y' && !has(subject.claims.absent)",
            true,
        ),
        ("subject.claims.other == 'z'", false),
        (
            "size(subject.claims) > 1 && subject.claims.other == 'y'",
            true,
        ),
    ] {
        gate.reload(&builder(&app).set("policies.rule.allow", rule))
            .unwrap();
        for answer in ask().await {
            if is_allowed {
                answer.assert_token();
            } else {
                answer.assert_error(403, "rule_forbidden");
            }
        }
    }
}

#[actix_web::test]
async fn a_rule_over_more_than_1000_list_entries_denies() {
    let rule = "subject.claims.groups.all(g, g != 'x') || true";
    let proxy =
        forwarded("x-user").claims(json!({ "groups": { "header": "x-groups", "list": "," } }));
    let gate = Gate::accepting(["proxy"])
        .server("trusted_proxies", ["127.0.0.1/32"])
        .identity("proxy", proxy)
        .policy("rule", expression(rule))
        .chain(["signed-in", "rule"])
        .start()
        .await;
    for (entries, is_denied) in [(1000, false), (1001, true), (1500, true)] {
        let groups = vec!["g"; entries].join(",");
        let request = gate.ask().header("x-user", "user_1");
        let answer = request.header("x-groups", &groups).send().await;
        if is_denied {
            answer.assert_error(403, "rule_forbidden");
        } else {
            answer.assert_token();
        }
    }
}

const CONNECTIONS: u64 = 16;

/// Sends requests with these headers over some connections at once, and checks their status.
async fn send_all(
    gate: &GateProcess,
    headers: impl Iterator<Item = (&'static str, String)>,
    status: u16,
) {
    let url = format!("{}{ROUTE}", gate.url());
    let client = awc::Client::builder()
        .timeout(std::time::Duration::from_secs(60))
        .finish();
    stream::iter(headers)
        .for_each_concurrent(CONNECTIONS as usize, |header| async {
            let request = client.post(&url).insert_header(header);
            let mut answer = request.send().await.unwrap();
            answer.body().await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
        })
        .await;
}

#[actix_web::test]
async fn caches_full_of_the_largest_claims_add_at_most_24_mb() {
    let app = Service::start();
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&builder(&app), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let idle = gate.memory("VmRSS");
    let user = std::cell::Cell::new(0);
    let tokens = |count: usize, metadata: &Value, other: &Value| {
        let token = Token::of("user").with("metadata", metadata.clone());
        let token = token.with("other", other.clone());
        (0..count).map(move |_| token.clone()).collect::<Vec<_>>()
    };
    let signed = |tokens: Vec<Token>| {
        tokens.into_iter().map(|token| {
            user.set(user.get() + 1);
            let token = token
                .with("sub", format!("user_{}", user.get()).into())
                .sign();
            ("authorization", format!("Bearer {token}"))
        })
    };
    let small = json!("x");
    // Claims that no policy reads, as large as a token may be; then claims that a policy reads: as large as the cache
    // keeps, as large as the gate accepts, and larger.
    send_all(&gate, signed(tokens(300, &small, &objects(700))), 200).await;
    send_all(&gate, signed(tokens(1000, &objects(36), &small)), 200).await;
    send_all(&gate, signed(tokens(300, &objects(120), &small)), 200).await;
    send_all(&gate, signed(tokens(300, &objects(700), &small)), 401).await;
    send_all(&gate, signed(tokens(300, &nested(100), &small)), 401).await;
    // Answers of 60 KiB.
    for (path, header) in [("/introspect", "x-opaque"), ("/session", "x-app-key")] {
        let fill = json!("x".repeat(55 << 10));
        for (metadata, other) in [(objects(120), &fill), (fill.clone(), &small)] {
            app.answer(path, says(&metadata, other));
            let keys = (0..300).map(|_| (header, fastrand::u64(..).to_string()));
            send_all(&gate, keys, 200).await;
        }
    }
    // The gate may use 40 MB with empty caches and 64 MB with full ones. This build differs, so the difference counts.
    let bound = (24 << 20) + (16 << 10) * CONNECTIONS;
    let added = gate.memory("VmHWM") - idle;
    assert!(
        added <= bound,
        "{added} bytes were added, {bound} are allowed"
    );
}

/// A connection on which a request with a large head was sent, except for the last `missing` bytes.
async fn with_large_head(gate: &GateProcess, missing: usize) -> TcpStream {
    let url = gate.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let cookie = "x".repeat(100 << 10);
    let head = format!("GET /nowhere HTTP/1.1\r\nhost: gate\r\ncookie: c={cookie}\r\n\r\n");
    // The gate may end the connection before it has read all.
    let _ = stream
        .write_all(&head.as_bytes()[..head.len() - missing])
        .await;
    stream
}

/// The status line of the answer; empty if the connection ends without an answer.
async fn status_line(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_buf(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

#[actix_web::test]
async fn large_heads_of_many_clients_take_a_bounded_amount_of_memory() {
    const CLIENTS: u64 = 400;

    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&Gate::standard(), imgwire.url());
    let gate = GateProcess::start_with(&config, &[], "info", &[]).await;
    let idle = gate.memory("VmRSS");
    let mut streams = Vec::new();
    for client in 0..CLIENTS {
        // Half of the clients stay idle after their request; the others never finish it.
        let missing = if client % 2 == 0 { 0 } else { 1 };
        streams.push(with_large_head(&gate, missing).await);
    }
    eventually("a refusal", async || {
        status_line(&mut with_large_head(&gate, 0).await).await
            == "HTTP/1.1 431 Request Header Fields Too Large"
    })
    .await;
    let added = gate.memory("VmHWM") - idle;
    let bound = (24 << 20) + (16 << 10) * CLIENTS;
    assert!(
        added <= bound,
        "{added} bytes were added, {bound} are allowed"
    );
    // Clients with heads of an ordinary size are not affected.
    let good = Token::of("user_1").sign();
    let good = ("authorization", format!("Bearer {good}"));
    send_all(&gate, std::iter::once(good), 200).await;
    let warning = "request head memory exhausted, closing connections that send large heads";
    assert_eq!(gate.log().matches(warning).count(), 1);
    // A connection that ends frees its memory.
    drop(streams);
    eventually("room for a large head", async || {
        status_line(&mut with_large_head(&gate, 0).await).await == "HTTP/1.1 404 Not Found"
    })
    .await;
}

#[actix_web::test]
async fn a_token_that_is_too_long_is_refused_and_the_reason_has_both_numbers() {
    let padded = |bytes: usize| {
        Token::of("user_1")
            .with("padding", json!("x".repeat(bytes)))
            .sign()
    };
    let default = gate(&env("TEST_SECRET")).start().await;
    let small = gate(&env("TEST_SECRET"))
        .set("identities.app.max_token_size", "1KiB")
        .start()
        .await;
    for (app, bytes, max) in [(&default, 11_000, 16_384), (&small, 500, 1024)] {
        assert_eq!(status(app, &padded(bytes)).await, 200);
        let long = padded(bytes + 2000);
        app.ask()
            .bearer(&long)
            .send()
            .await
            .assert_error(401, "invalid_credentials");
        let explain = app.request_management(actix_web::http::Method::POST, "/explain");
        let explained = explain.json(&json!({ "token": long })).await;
        let expected = format!(
            "the token is too long: it has {} bytes, and `max_token_size` is {max}",
            long.len()
        );
        assert!(explained.text.contains(&expected), "{explained:?}");
    }
    for (size, expected) in [
        ("0B", "more than zero"),
        ("129KiB", "must be at most 128KiB"),
    ] {
        let gate = gate(&env("OTHER")).set("identities.app.max_token_size", size);
        let fault = fault(&gate, GOOD);
        assert!(fault.contains(expected), "{fault:?}");
    }
}
