//! The cookies and headers that the app receives when the gate asks it about a session.

use std::time::Duration;

use serde_json::json;

use crate::{
    helpers::{Answer, Gate, TestApp, remote_session},
    service::{Reply, Service},
};

const PATH: &str = "/session";

fn builder(app: &Service, forward: &[&str]) -> Gate {
    let user = json!({ "user": { "id": "user_1" } });
    app.answer(PATH, Reply::json(&user));
    let site = remote_session(&format!("{}{PATH}", app.url), forward, "/user/id");
    Gate::accepting(["site"]).identity("site", site)
}

/// Asks with a header `Cookie` for each line.
async fn ask(gate: &TestApp, lines: &[&str]) -> Answer {
    let request = lines.iter().fold(gate.ask(), |request, line| {
        request.bytes("cookie", line.as_bytes())
    });
    request.send().await
}

/// The cookies that the app received last.
fn received(app: &Service) -> String {
    app.seen(PATH).pop().unwrap().headers["cookie"].clone()
}

#[actix_web::test]
async fn a_forwarded_cookie_arrives_byte_for_byte() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid"]).start().await;
    for value in [
        "\"quoted\"",
        "\"a, b\"",
        "s%3Aabc.d%2Fe%2Bf%3D",
        "a=b==",
        "{\"id\":[1,2]}",
        "J\u{fc}rgen",
        "a\\\"b",
        "a b",
        "+%zz",
    ] {
        let sent = format!("theme=dark; sid={value}; other=1");
        ask(&gate, &[&sent]).await.assert_token();
        assert_eq!(received(&app), format!("sid={value}"));
    }
}

#[actix_web::test]
async fn a_forwarded_credential_need_not_be_utf_8() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid*", "header:x-key"])
        .set("identities.site.cache", "10s")
        .start()
        .await;
    for (name, value, expected) in [
        ("cookie", b"sid=J\xfcrgen".as_slice(), "sid=J\\xfcrgen"),
        ("cookie", b"sid=J\xf6rgen", "sid=J\\xf6rgen"),
        ("cookie", b"sid=\xff\xfe\x80", "sid=\\xff\\xfe\\x80"),
        // The chunks of one character.
        (
            "cookie",
            b"sid.0=\xc3; sid.1=\xbc",
            "sid.0=\\xc3; sid.1=\\xbc",
        ),
        ("x-key", b"J\xfcrgen", "J\\xfcrgen"),
        ("x-key", "J\u{fc}rgen".as_bytes(), "J\u{fc}rgen"),
    ] {
        let answer = gate.ask().bytes(name, value).send().await;
        answer.assert_token();
        // Another value is another entry of the cache.
        assert_eq!(app.seen(PATH).pop().unwrap().headers[name], expected);
    }
    assert_eq!(app.seen(PATH).len(), 6);
    let twice = gate.ask().bytes("x-key", b"\xfc").bytes("x-key", b"\xfc");
    let answer = twice.send().await;
    answer.assert_error(401, "invalid_credentials");
    // Bytes after the scheme do not hide that browsers send such a credential by themselves.
    let gate = builder(&app, &["header:authorization"]).start().await;
    let page = gate.ask().header("origin", "https://evil.example");
    let answer = page.bytes("authorization", b"Basic \xfc").send().await;
    answer.assert_error(403, "cross_site");
}

#[actix_web::test]
async fn all_chunks_of_a_cookie_arrive_in_the_order_of_the_request() {
    let app = Service::start();
    let forward = ["cookie:authjs.session-token*", "cookie:lang"];
    let gate = builder(&app, &forward).start().await;
    for (lines, expected) in [
        (vec!["authjs.session-token=abc"], "authjs.session-token=abc"),
        (
            vec![
                "authjs.session-token.1=b; x=1; lang=de; authjs.session-token.0=a; authjs.session-token.10=c",
            ],
            "authjs.session-token.1=b; lang=de; authjs.session-token.0=a; authjs.session-token.10=c",
        ),
        (
            vec!["authjs.session-token.0=a; x=1", "authjs.session-token.1=b"],
            "authjs.session-token.0=a; authjs.session-token.1=b",
        ),
        (
            vec!["authjs.session-token=; authjs.session-token.0=a"],
            "authjs.session-token.0=a",
        ),
        // Names that only look alike are other cookies.
        (
            vec![
                "authjs.session-token.x=1; authjs.session-token2=2; authjs.session-token.01=3; \
                 authjs.session-token.100=4; authjs.session-token.=5; xauthjs.session-token.0=6; \
                 authjs.session-token.3=\"a\"",
            ],
            "authjs.session-token.3=\"a\"",
        ),
    ] {
        ask(&gate, &lines).await.assert_token();
        assert_eq!(received(&app), expected);
    }
    let asked = app.seen(PATH).len();
    let others = "authjs.session-token.x=1; authjs.session-token2=2; authjs.session-token.7=";
    ask(&gate, &[others])
        .await
        .assert_error(401, "not_signed_in");
    assert_eq!(app.seen(PATH).len(), asked);
}

#[actix_web::test]
async fn two_chunks_of_one_name_are_refused() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid*", "cookie:sid"]).start().await;
    for lines in [
        vec!["sid.0=a; sid.1=b; sid.0=a"],
        vec!["sid.0=a", "sid.0=c"],
        vec!["sid=a; sid.0=b; sid=c"],
    ] {
        ask(&gate, &lines)
            .await
            .assert_error(401, "invalid_credentials");
    }
    assert!(app.seen(PATH).is_empty());
    // A cookie that two entries of `forward` name is sent once.
    ask(&gate, &["sid=a; sid.0=b"]).await.assert_token();
    assert_eq!(received(&app), "sid=a; sid.0=b");
}

#[actix_web::test]
async fn an_answer_is_cached_for_all_chunks_together() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid*"])
        .set("identities.site.cache", "10s")
        .start()
        .await;
    for (cookies, calls) in [
        ("sid.0=a; sid.1=b", 1),
        ("theme=dark; sid.0=a; sid.1=b", 1),
        ("sid.0=a; sid.1=c", 2),
        ("sid.0=a", 3),
        ("sid.0=a; sid.1=b; sid.2=c", 4),
        ("sid.0=a.1=b", 5),
        ("sid=a; sid.1=b", 6),
        ("sid.0=a; sid.1=b", 6),
    ] {
        ask(&gate, &[cookies]).await.assert_token();
        assert_eq!(app.seen(PATH).len(), calls, "{cookies}");
    }
    gate.clock.advance(Duration::from_secs(11));
    ask(&gate, &["sid.0=a; sid.1=b"]).await.assert_token();
    assert_eq!(app.seen(PATH).len(), 7);
}

#[actix_web::test]
async fn chunks_are_accepted_only_from_the_gates_own_pages() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid*"]).start().await;
    let request = gate
        .ask()
        .header("cookie", "sid.0=a")
        .header("origin", "https://evil.example.com");
    request.send().await.assert_error(403, "cross_site");
    assert!(app.seen(PATH).is_empty());
}

#[actix_web::test]
async fn constant_headers_are_sent_with_every_call() {
    let app = Service::start();
    let gate = builder(&app, &["cookie:sid", "header:x-app-key"])
        .set(
            "identities.site.headers",
            json!({ "X-Forwarded-Proto": "https", "x-tenant": "a, b", "Accept": "text/json" }),
        )
        .start()
        .await;
    let request = gate
        .ask()
        .header("cookie", "sid=a")
        .header("x-app-key", "key")
        .header("x-forwarded-proto", "http")
        .header("x-tenant", "another");
    request.send().await.assert_token();
    let seen = app.seen(PATH).pop().unwrap();
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-tenant", "a, b"),
        ("accept", "text/json"),
        ("x-app-key", "key"),
        ("cookie", "sid=a"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    // Constants alone are no credential.
    let asked = app.seen(PATH).len();
    gate.ask().send().await.assert_error(401, "not_signed_in");
    assert_eq!(app.seen(PATH).len(), asked);
}
