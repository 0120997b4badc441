//! Text of Imgwire that goes to the log: the reason of an error, and the id of an upload token.

use serde_json::{Value, json};

use crate::{
    helpers::{Emulator, Gate, SERVER_API_KEY, eventually},
    imgwire_errors::{Logged, Upstream},
};

#[actix_web::test]
async fn hostile_bodies_are_bounded_and_cleaned_in_the_log() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    let long = "x".repeat(10_000);
    let nested = "[".repeat(20_000) + &"]".repeat(20_000);
    let controls = "a\u{0}\u{1b}[31m\r\n{\"level\":\"ERROR\"}\u{202e}\u{200b}b";
    let errors = json!({ "loc": ["body", 1], "msg": long, "type": controls });
    let bodies = [
        json!({ "detail": "x".repeat(100_000), "error_type": "InvalidTokenError" }).to_string(),
        json!({ "detail": long, "error_type": long }).to_string(),
        json!({ "detail": controls, "error_type": controls }).to_string(),
        json!({ "detail": 7, "error_type": 7 }).to_string(),
        json!({ "detail": null, "error_type": null }).to_string(),
        json!({ "detail": vec![errors; 6], "error_type": ["InvalidTokenError"] }).to_string(),
        json!({ "detail": { "error_type": "InvalidTokenError" } }).to_string(),
        format!(r#"{{"detail":"{SERVER_API_KEY} is wrong","error_type":"{SERVER_API_KEY}"}}"#),
        r#"{"detail":"sk_of_another_gate","error_type":"sk_of_another_gate"}"#.to_owned(),
        format!(r#"{{"detail":{nested},"error_type":"InvalidTokenError"}}"#),
        r#"{"error_type":"InvalidTokenError","error_type":"PaymentRequiredError"}"#.to_owned(),
        r#"{"error_type":"InvalidTokenError""#.to_owned(),
        "\u{feff}{}".to_owned(),
        "null".to_owned(),
        String::new(),
    ];
    for body in &bodies {
        upstream.respond(422, body);
        gate.ask().await.assert_error(500, "imgwire_failed");
    }
    gate.logged(bodies.len()).await;
    let log = gate.process.log();
    assert!(log.lines().all(|line| line.len() < 2000), "{log}");
    for hidden in [
        SERVER_API_KEY,
        "another_gate",
        "\\u00",
        "\u{202e}",
        "\u{200b}",
    ] {
        assert!(!log.contains(hidden), "{hidden}");
    }
    let decisions = gate.process.decisions();
    let logged = |index: usize| (&decisions[index]["error_type"], &decisions[index]["detail"]);
    assert_eq!(logged(0), (&Value::Null, &Value::Null), "it is too large");
    assert_eq!(logged(1), (&json!(&long[..64]), &json!(&long[..300])));
    let cleaned = json!(r#"a[31m  {"level":"ERROR"}b"#);
    assert_eq!(logged(2), (&cleaned, &cleaned));
    assert_eq!(logged(3), (&Value::Null, &Value::Null));
    assert_eq!(logged(4), (&Value::Null, &Value::Null));
    let detail = logged(5).1.as_str().unwrap();
    assert!(detail.starts_with("body.1: xxx") && detail.len() == 300);
    assert_eq!(logged(7), (&json!("***"), &json!("*** is wrong")));
    assert_eq!(logged(8), (&json!("***"), &json!("***")));
    for index in [6, 9, 10, 11, 12, 13, 14] {
        assert_eq!(logged(index), (&Value::Null, &Value::Null), "{index}");
    }
    // Clients and Imgwire cannot add time series.
    let mut counted = gate.metrics("imgwire_gate_imgwire_errors_total").await;
    counted.sort();
    assert_eq!(
        counted,
        [
            r#"imgwire_gate_imgwire_errors_total{error_type="none"} 10"#,
            r#"imgwire_gate_imgwire_errors_total{error_type="other"} 4"#,
            r#"imgwire_gate_imgwire_errors_total{error_type="validation"} 1"#,
        ]
    );
}

#[actix_web::test]
async fn the_id_of_a_token_is_in_the_decision_line_and_not_in_the_response() {
    let upstream = Upstream::start();
    let gate = Logged::before(&upstream).await;
    let long = "x".repeat(1000);
    let cases = [
        (
            json!("7d6a7f2e-0000-4000-8000-000000000001"),
            json!("7d6a7f2e-0000-4000-8000-000000000001"),
        ),
        (json!("ut_123"), json!("ut_123")),
        (json!(long), json!(&long[..64])),
        (json!("a\n\u{1b}b"), json!("a b")),
        (json!(SERVER_API_KEY), json!("***")),
        // The token itself is a secret.
        (json!("ut_secret"), Value::Null),
        (json!(""), Value::Null),
        (json!(7), Value::Null),
        (Value::Null, Value::Null),
    ];
    for (id, _) in &cases {
        let expires_at = "2030-01-01T00:00:00Z";
        let body = json!({ "id": id, "token": "ut_secret", "expires_at": expires_at });
        upstream.respond(200, &body.to_string());
        let answer = gate.ask().await;
        let expected = json!({ "uploadToken": "ut_secret", "expiresAt": expires_at });
        assert_eq!(answer.json, expected);
    }
    upstream.respond(200, r#"{"token":"ut_secret"}"#);
    gate.ask().await.assert_token();
    gate.logged(cases.len() + 1).await;
    let decisions = gate.process.decisions();
    for (line, (id, expected)) in decisions.iter().zip(&cases) {
        assert_eq!(line["upload_token_id"], *expected, "{id}");
    }
    assert_eq!(decisions[cases.len()]["upload_token_id"], Value::Null);
    assert!(!gate.process.log().contains("ut_secret"));
}

#[actix_web::test]
async fn the_id_of_a_pooled_token_is_logged_with_the_request_that_gets_it() {
    let imgwire = Emulator::start().unwrap();
    let gate = Gate::accepting(["app"])
        .imgwire("base_url", imgwire.url())
        .imgwire("pool", json!({ "size": 8, "max_age": "2m" }));
    let gate = Logged::start(&gate).await;
    let mut issued = Vec::new();
    eventually("pooled tokens", async || {
        let answer = gate.ask().await;
        answer.assert_token();
        let token = answer.json["uploadToken"].as_str().unwrap();
        let number: u32 = token.split('_').nth(1).unwrap().parse().unwrap();
        issued.push((answer.header("x-request-id").to_owned(), number));
        let pooled = gate.metrics("imgwire_gate_creations_total{result=\"pooled\"}");
        let pooled = pooled.await;
        pooled.iter().any(|line| !line.ends_with(" 1"))
    })
    .await;
    gate.logged(issued.len()).await;
    // The emulator numbers tokens and their ids alike.
    for (line, (request_id, number)) in gate.process.decisions().iter().zip(&issued) {
        assert_eq!(line["request_id"], *request_id);
        let id = line["upload_token_id"].as_str().unwrap();
        assert!(id.ends_with(&format!("-{number:012}")), "{id} of {number}");
    }
}
