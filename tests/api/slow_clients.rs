//! Clients that send slowly or not at all: their requests and connections are limited.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::helpers::{Gate, ROUTE, Token, eventually};

/// The request timeout of the tests' gates, and when a connection must be closed.
const LIMIT: Duration = Duration::from_millis(500);
const SURELY: Duration = Duration::from_secs(5);

fn builder() -> Gate {
    Gate::standard().server("request_timeout", "500ms")
}

async fn connect(url: &str) -> TcpStream {
    let address = url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Reads until the connection ends; returns the text and the time that it took.
async fn until_the_end(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut answer = Vec::new();
    let end = timeout(SURELY, stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "it is still open: {answer:?}");
    (
        String::from_utf8_lossy(&answer).into_owned(),
        began.elapsed(),
    )
}

/// Reads one answer with the content length of its head.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        let read = timeout(SURELY, stream.read_buf(&mut answer)).await;
        assert!(read.unwrap().unwrap() > 0, "it ended: {text}");
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: gate\r\n\r\n")
}

/// Sends `first`, then `rest` byte by byte more slowly than the limit allows.
async fn trickle(url: &str, first: &str, rest: &'static str) -> Duration {
    let mut stream = connect(url).await;
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = actix_web::rt::spawn(async move {
        for byte in rest.as_bytes().chunks(1).cycle() {
            tokio::time::sleep(LIMIT / 10).await;
            if writing.write_all(byte).await.is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let mut answer = Vec::new();
    let end = timeout(SURELY, reading.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "it is still open after {first:?}");
    sending.abort();
    began.elapsed()
}

#[actix_web::test]
async fn each_request_of_a_connection_must_arrive_in_time_on_both_listeners() {
    let gate = builder().start().await;
    for (url, path) in [(&gate.url, ROUTE), (&gate.management, "/livez")] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: gate\r\n");
        let chunked = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n")
        };
        let with_length = format!("{head}content-length: 100\r\n\r\n");
        for (first, rest) in [
            // The first head, and a later one.
            (head.clone(), "x: y\r\n"),
            (format!("{}{head}", get("/nowhere")), "x: y\r\n"),
            // Bodies.
            (with_length.clone(), " "),
            (format!("{}{with_length}", get("/nowhere")), " "),
            (chunked(path), "1\r\nx\r\n"),
            (
                format!("{}{}", get("/nowhere"), chunked(path)),
                "1\r\nx\r\n",
            ),
            // A chunked body that no handler reads.
            (chunked("/nowhere"), "1\r\nx\r\n"),
        ] {
            let took = trickle(url, &first, rest).await;
            assert!(
                took < Duration::from_secs(3),
                "{path}: {took:?} for {first:?}"
            );
        }
    }
}

#[actix_web::test]
async fn a_head_that_stops_ends_its_connection_after_the_limit() {
    let gate = builder().start().await;
    let mut stream = connect(&gate.url).await;
    for part in [get("/nowhere"), get("/nowhere")] {
        stream.write_all(part.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404"));
    }
    stream
        .write_all(b"GET /nowhere HTTP/1.1\r\nho")
        .await
        .unwrap();
    let (_, took) = until_the_end(&mut stream).await;
    assert!(took >= LIMIT / 2 && took < LIMIT * 4, "{took:?}");

    // So does a head whose beginning arrived with the previous request.
    let mut stream = connect(&gate.url).await;
    let both = format!("{}GET /nowhere HTTP/1.1\r\nho", get("/nowhere"));
    stream.write_all(both.as_bytes()).await.unwrap();
    let (_, took) = until_the_end(&mut stream).await;
    assert!(took < LIMIT * 4, "{took:?}");

    // A connection without any bytes ends, too.
    let mut stream = connect(&gate.url).await;
    let (_, took) = until_the_end(&mut stream).await;
    assert!(took < LIMIT * 4, "{took:?}");
}

#[actix_web::test]
async fn an_idle_connection_stays_open_between_requests() {
    let gate = builder().start().await;
    let mut stream = connect(&gate.url).await;
    for _ in 0..3 {
        stream.write_all(get("/nowhere").as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404"));
        // Longer than a request may take.
        let silence = timeout(LIMIT * 2, stream.read_u8()).await;
        assert!(silence.is_err(), "it ended");
    }
}

#[actix_web::test]
async fn a_body_that_stops_is_answered_with_400() {
    let gate = builder().start().await;
    let mut stream = connect(&gate.url).await;
    let request = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (text, took) = until_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert!(took < LIMIT * 4, "{took:?}");
}

#[actix_web::test]
async fn requests_with_unfinished_bodies_do_not_count_as_in_flight() {
    let gate = builder().server("max_in_flight", 5).start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&gate.url).await;
        let request = format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..10 {
        gate.ask_as(&Token::of("user_1")).await.assert_token();
    }
    assert_eq!(gate.metric("imgwire_gate_in_flight").await, 0.0);
    drop(slow);
}

#[actix_web::test]
async fn connections_beyond_the_limit_wait_until_others_end() {
    // The tests' gates have two workers.
    let gate = builder().server("max_connections", 4).start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&gate.url).await;
        stream.write_all(get("/nowhere").as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404"));
        open.push(stream);
    }
    let mut waiting = connect(&gate.url).await;
    waiting.write_all(get("/nowhere").as_bytes()).await.unwrap();
    let early = timeout(LIMIT, waiting.read_u8()).await;
    assert!(early.is_err(), "it is answered beside four others");
    // The management listener has its own connections.
    assert_eq!(gate.manage("/livez").await.status, 200);
    drop(open);
    assert!(answer(&mut waiting).await.starts_with("HTTP/1.1 404"));
}

#[actix_web::test]
async fn a_flood_of_slow_heads_leaves_no_connection_behind() {
    let gate = builder().start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&gate.url).await;
        stream.write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    gate.ask_as(&Token::of("user_1")).await.assert_token();
    for stream in &mut slow {
        until_the_end(stream).await;
    }
    eventually("an answer", async || {
        gate.ask_as(&Token::of("user_1")).await.status == 200
    })
    .await;
}
