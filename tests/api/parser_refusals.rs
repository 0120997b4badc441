//! The log line of what the HTTP parser refuses before there is a request.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    helpers::{Emulator, Gate, eventually},
    process::{GateProcess, write_config},
};

#[actix_web::test]
async fn what_the_http_parser_refuses_has_a_line_with_its_cause() {
    let gate = Gate::standard().server("request_timeout", "1s");
    let imgwire = Emulator::start().unwrap();
    let (_folder, config) = write_config(&gate, imgwire.url());
    let gate = GateProcess::start(&config, &[], "info").await;
    let refused = || {
        let mut lines = gate.lines();
        lines.retain(|line| line["message"] == "refused by the HTTP parser");
        lines
    };
    let address = gate.url();
    let address = address.strip_prefix("http://").unwrap();
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let cases: [(&[u8], Option<u64>, &str); 6] = [
        (b"\0\0\0 HTTP\r\n\r\n", Some(400), "not HTTP/1.1"),
        (
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n",
            Some(400),
            "TLS",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(400), "HTTP/2"),
        (
            b"GET /livez HTTP/1.1\r\nhost: gate\r\n\r\n\0\0 HTTP\r\n\r\n",
            Some(400),
            "not HTTP/1.1",
        ),
        (large.as_bytes(), Some(431), "larger than 128 KiB"),
        (b"GET / HT", None, "did not arrive in time"),
    ];
    for (number, (sent, status, reason)) in cases.into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The gate may close the connection before it has read everything.
        let _ = stream.write_all(sent).await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .unwrap();
        eventually("the line", async || refused().len() > number).await;
        let lines = refused();
        assert_eq!(lines.len(), number + 1, "{lines:#?}");
        let line = &lines[number];
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
        if let Some(status) = status {
            assert_eq!(line["status"], status, "{line}");
        }
        assert_eq!(
            (&line["client"], &line["level"]),
            (&json!("127.0.0.1"), &json!("INFO"))
        );
    }
    let lines = gate.lines();
    assert!(
        !lines
            .iter()
            .any(|line| line["target"].to_string().contains("actix")),
        "{lines:#?}"
    );
}
