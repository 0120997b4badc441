//! Calls to Imgwire: headers, retries, deadlines and connections.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::helpers::{Gate, Misbehaviour, TestApp, Token, eventually};

#[actix_web::test]
async fn calls_to_imgwire_carry_the_key_the_user_agent_and_the_trace() {
    let app = Gate::standard()
        .imgwire("environment_id", "env-1")
        .start()
        .await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = app.ask().bearer(&Token::of("user_1").sign());
    let request = request
        .header("traceparent", trace)
        .header("tracestate", "vendor=1");
    request
        .header("x-secret", "of the client")
        .send()
        .await
        .assert_token();
    let headers = app.imgwire.last_headers();
    let header = |name: &str| {
        let found = headers.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    assert_eq!(header("authorization"), "Bearer sk_emulator");
    assert_eq!(
        header("user-agent"),
        concat!("imgwire-gate/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(header("x-environment-id"), "env-1");
    assert_eq!(header("traceparent"), trace);
    assert_eq!(header("tracestate"), "vendor=1");
    assert_eq!(header("x-secret"), "");
    for (length, is_passed_on) in [(512, true), (513, false), (4000, false)] {
        let state = format!("vendor={}", "1".repeat(length - "vendor=".len()));
        let request = app.ask().bearer(&Token::of("user_1").sign());
        let request = request
            .header("traceparent", trace)
            .header("tracestate", &state);
        request.send().await.assert_token();
        let headers = app.imgwire.last_headers();
        let passed_on = headers.iter().any(|(name, _)| name == "tracestate");
        assert_eq!(passed_on, is_passed_on, "{length}");
        assert!(headers.contains(&("traceparent".to_owned(), trace.to_owned())));
    }
    let request = app.ask().bearer(&Token::of("user_1").sign());
    request
        .header("traceparent", "nonsense")
        .send()
        .await
        .assert_token();
    assert!(
        app.imgwire
            .last_headers()
            .iter()
            .all(|(name, _)| name != "traceparent")
    );
}

#[actix_web::test]
async fn failures_that_may_be_temporary_are_retried() {
    for failure in [
        Misbehaviour::Status(408, None),
        Misbehaviour::Status(429, None),
        Misbehaviour::Status(500, None),
        Misbehaviour::Status(503, None),
        Misbehaviour::Status(599, None),
        Misbehaviour::Reset,
        Misbehaviour::Close,
        Misbehaviour::BreakOff,
    ] {
        let app = TestApp::start().await;
        app.imgwire
            .misbehave_next([failure.clone(), failure.clone()]);
        app.ask_as(&Token::of("user_1")).await.assert_token();
        assert_eq!(app.imgwire.asked(), 3, "{failure:?}");
    }
}

#[actix_web::test]
async fn retries_are_limited_by_the_config() {
    let app = Gate::standard().imgwire("retries", 1).start().await;
    app.imgwire.misbehave(Some(Misbehaviour::Status(503, None)));
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(500, "imgwire_failed");
    assert_eq!(app.imgwire.asked(), 2);
    let attempts = "imgwire_gate_upstream_attempts_total";
    assert_eq!(app.metric(attempts).await, 2.0);
}

#[actix_web::test]
async fn permanent_failures_are_not_retried() {
    for failure in [
        Misbehaviour::Status(201, None),
        Misbehaviour::Status(302, None),
        Misbehaviour::Status(401, None),
        Misbehaviour::Status(403, None),
        Misbehaviour::Status(422, None),
        Misbehaviour::Body("<html>".into()),
        Misbehaviour::Body(String::new()),
        Misbehaviour::Body("{}".into()),
        Misbehaviour::Body(r#"{"token":""}"#.into()),
        Misbehaviour::Body(r#"{"token":null}"#.into()),
        Misbehaviour::Body(r#"{"token":7}"#.into()),
        Misbehaviour::Body(r#"["token"]"#.into()),
        Misbehaviour::Body(format!(r#"{{"token":"{}"}}"#, "x".repeat(10 << 20))),
    ] {
        let app = TestApp::start().await;
        app.imgwire.misbehave(Some(failure));
        app.ask_as(&Token::of("user_1"))
            .await
            .assert_error(500, "imgwire_failed");
        assert_eq!(app.imgwire.asked(), 1);
    }
}

#[actix_web::test]
async fn an_attempt_ends_with_its_timeout_and_all_attempts_with_the_deadline() {
    let app = Gate::standard()
        .imgwire("timeout", "200ms")
        .imgwire("deadline", "500ms")
        .imgwire("retries", 10)
        .start()
        .await;
    for failure in [
        Misbehaviour::Hang,
        Misbehaviour::Slow(Duration::from_secs(5)),
        Misbehaviour::Trickle(Duration::from_millis(50)),
    ] {
        let asked = app.imgwire.asked();
        app.imgwire.misbehave(Some(failure));
        let started = Instant::now();
        app.ask_as(&Token::of("user_1"))
            .await
            .assert_error(500, "imgwire_failed");
        let took = started.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
        assert!((2..=3).contains(&(app.imgwire.asked() - asked)));
    }
}

#[actix_web::test]
async fn retry_after_is_respected_within_the_deadline() {
    let app = Gate::standard().imgwire("retries", 1).start().await;
    app.imgwire
        .misbehave_next([Misbehaviour::Status(429, Some("1".into()))]);
    let started = Instant::now();
    app.ask_as(&Token::of("user_1")).await.assert_token();
    assert!(started.elapsed() >= Duration::from_secs(1));
    app.imgwire
        .misbehave_next([Misbehaviour::Status(503, Some("60".into()))]);
    let started = Instant::now();
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(500, "imgwire_failed");
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "it fails without a wait"
    );
    let past = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
    app.imgwire
        .misbehave_next([Misbehaviour::Status(429, Some(past))]);
    app.ask_as(&Token::of("user_1")).await.assert_token();
}

#[actix_web::test]
async fn an_unreachable_imgwire_is_500() {
    let app = Gate::standard()
        .imgwire("base_url", "http://127.0.0.1:9")
        .start()
        .await;
    app.ask_as(&Token::of("user_1"))
        .await
        .assert_error(500, "imgwire_failed");
    let line = "imgwire_gate_creations_total{result=\"unreachable\"}";
    assert_eq!(app.metric(line).await, 1.0);
}

/// An Imgwire that answers one request per connection, claims to keep the connection, and closes it.
async fn closing_upstream() -> (String, std::rc::Rc<std::cell::Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = served.clone();
    actix_web::rt::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = count.clone();
            actix_web::rt::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                    let body = r#"{"token":"ut_1"}"#;
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                    count.set(count.get() + 1);
                    // The next request on this connection finds it closed.
                    let _ = stream.read(&mut buffer).await;
                }
            });
        }
    });
    (url, served)
}

#[actix_web::test]
async fn a_kept_connection_that_was_closed_costs_no_attempt() {
    let (url, served) = closing_upstream().await;
    let gate = Gate::standard()
        .imgwire("base_url", url)
        .imgwire("retries", 0);
    let app = gate.start().await;
    for number in 1..=6 {
        let answer = app.ask_as(&Token::of("user_1")).await;
        assert_eq!(answer.json["uploadToken"], "ut_1");
        assert_eq!(served.get(), number);
    }
}

#[actix_web::test]
async fn connections_to_imgwire_are_kept() {
    let app = TestApp::start().await;
    for _ in 0..20 {
        app.ask_as(&Token::of("user_1")).await.assert_token();
    }
    assert!(app.imgwire.connections() <= 2, "one per worker");
}

#[actix_web::test]
async fn a_client_that_disconnects_leaves_nothing_unsettled() {
    let app = Gate::standard()
        .imgwire("retries", 0)
        .imgwire("timeout", "1s")
        .start()
        .await;
    let address = app.url.strip_prefix("http://").unwrap().to_owned();
    let token = Token::of("user_1").sign();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n",
        crate::helpers::ROUTE
    );
    for (sent, upstream) in [
        ("".to_owned(), None),
        (head[..20].to_owned(), None),
        (head.clone(), None),
        (
            format!("{head}content-type: application/json\r\ncontent-length: 10\r\n\r\n{{\"w"),
            None,
        ),
        (
            format!("{head}\r\n"),
            Some(Misbehaviour::Slow(Duration::from_millis(200))),
        ),
        (format!("{head}\r\n"), Some(Misbehaviour::Status(500, None))),
        // The reservation is released long after the client left.
        (format!("{head}\r\n"), Some(Misbehaviour::Hang)),
        (format!("{head}\r\n"), None),
    ] {
        let asks = sent.ends_with("\r\n\r\n");
        let asked = app.imgwire.asked();
        app.imgwire.misbehave(upstream);
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        if asks {
            eventually("the request", async || app.imgwire.asked() > asked).await;
        }
        stream.set_zero_linger().unwrap();
        drop(stream);
        eventually("the end", async || {
            app.metric("imgwire_gate_in_flight").await == 0.0
        })
        .await;
    }
    app.imgwire.misbehave(None);
    let path = format!("{}/allowance", crate::helpers::ROUTE);
    let answer = app
        .request(actix_web::http::Method::GET, &path)
        .bearer(&token)
        .send()
        .await;
    // Two requests got a token, whether or not the client saw it.
    assert_eq!(answer.json["limits"][1]["remaining"], 500 - 2);
    assert_eq!(app.imgwire.created(), 2);
}
