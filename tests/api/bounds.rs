//! What clients can make the gate keep: claims within bounds, and caches that are bounded in bytes.

use futures_util::{StreamExt as _, stream};
use imgwire_gate::sandbox::emulator::Emulator;
use serde_json::{Value, json};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    helpers::{ROUTE, Recipe, TestApp, Token, eventually},
    process::{GateProcess, write_config},
    service::{Reply, Service},
};

/// A gate whose rule reads the claim `metadata` and whose identities are of every kind that remembers.
fn recipe(app: &Service) -> Recipe {
    let identities = format!(
        r#"
        [identities.opaque]
        kind = "introspection"
        url = "{url}/introspect"
        client_id = "gate"
        client_secret = {{ env = "TEST_SECRET" }}
        from = ["header:x-opaque"]
        cache = "1h"
        [identities.site]
        kind = "remote"
        url = "{url}/session"
        forward = ["header:x-app-key"]
        subject = "/sub"
        claims = {{ metadata = "/metadata", other = "/other" }}
        cache = "1h"
        "#,
        url = app.url
    );
    Recipe {
        server: r#"failures = { limit = 1000000, period = "1m" }"#.to_owned(),
        policies: r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["app", "opaque", "site"]
            [policies.rule]
            kind = "expression"
            allow = "subject.claims.metadata != null"
        "#
        .to_owned(),
        chain: r#"["signed-in", "rule"]"#.to_owned(),
        ..Recipe::accepting("[]", &identities)
    }
}

/// What an issuer or an app says of a user with these claims.
fn says(metadata: &Value, other: &Value) -> Reply {
    Reply::json(&json!({
        "active": true, "sub": "user_1", "metadata": metadata, "other": other,
    }))
}

/// A value that is nested on so many levels.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| {
        if level % 2 == 0 {
            json!([inner])
        } else {
            json!({ "a": inner })
        }
    })
}

/// So many objects, each of which takes much more memory than text.
fn objects(count: usize) -> Value {
    vec![json!({ "a": 0 }); count].into()
}

/// The answers to the same user by each kind of identity.
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
async fn claims_that_are_read_are_bounded_in_nesting_and_size() {
    let app = Service::start();
    let gate = recipe(&app).start().await;
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
        // What no policy reads does not count.
        for answer in by_each(&gate, &app, &small, bad).await {
            answer.assert_token();
        }
    }
}

#[actix_web::test]
async fn the_log_says_which_claim_is_beyond_the_bounds() {
    let app = Service::start();
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recipe(&app), imgwire.url());
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
async fn a_reload_that_reads_another_claim_finds_it_in_tokens_that_were_remembered() {
    let app = Service::start();
    let gate = recipe(&app).start().await;
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
        let mut recipe = recipe(&app);
        recipe.policies = recipe
            .policies
            .replace("subject.claims.metadata != null", rule);
        gate.reload(&recipe).unwrap();
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
async fn a_long_forwarded_list_denies_by_rule_and_blocks_nobody() {
    let recipe = Recipe {
        server: r#"trusted_proxies = ["127.0.0.1/32"]"#.into(),
        policies: r#"
            [policies.signed-in]
            kind = "signed_in"
            accept = ["proxy"]
            [policies.rule]
            kind = "expression"
            allow = "subject.claims.groups.all(g, g != 'x') || true"
        "#
        .into(),
        chain: r#"["signed-in", "rule"]"#.into(),
        ..Recipe::accepting(
            "[]",
            r#"
            [identities.proxy]
            kind = "forwarded"
            subject = "x-user"
            claims = { groups = "x-groups" }
            "#,
        )
    };
    let gate = recipe.start().await;
    for (entries, is_denied) in [(1000, false), (1001, true), (10_000, true)] {
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
async fn caches_that_are_full_of_the_worst_claims_add_24_mb_at_most() {
    let app = Service::start();
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&recipe(&app), imgwire.url());
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
    // Claims that nothing reads, as large as a token may be; then what is read, as large as is remembered, as large as
    // is taken, and larger.
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
    // The gate may take 40 MB without, and 64 MB with full caches. What this build takes by itself depends on its size.
    let bound = (24 << 20) + (16 << 10) * CONNECTIONS;
    let added = gate.memory("VmHWM") - idle;
    assert!(
        added <= bound,
        "{added} bytes were added, {bound} are allowed"
    );
}

/// A connection on which a request with a large head was sent, but for the last `missing` bytes.
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

/// The first line of what comes, if the connection does not just end.
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
    let (_folder, config) = write_config(&Recipe::default(), imgwire.url());
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
    // Clients with heads of an ordinary size notice nothing.
    let good = Token::of("user_1").sign();
    let good = ("authorization", format!("Bearer {good}"));
    send_all(&gate, std::iter::once(good), 200).await;
    let warning = "request head memory exhausted, closing connections that send large heads";
    assert_eq!(gate.log().matches(warning).count(), 1);
    // A connection that ends gives its room back.
    drop(streams);
    eventually("room for a large head", async || {
        status_line(&mut with_large_head(&gate, 0).await).await == "HTTP/1.1 404 Not Found"
    })
    .await;
}
