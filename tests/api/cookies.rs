//! How the gate reads cookies, byte by byte, and the session cookie that it sets.

use actix_web::http::Method;
use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::json;

use crate::{
    helpers::{Answer, Gate, SESSION, TestApp, Token, remote_session},
    service::{Reply, Service},
};

const NAME: &str = "__Host-imgwire_gate";

/// The value of a session's cookie.
async fn session_of(app: &TestApp, user: &str) -> String {
    let request = app.request(Method::POST, SESSION);
    let answer = request.bearer(&Token::of(user).sign()).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let (_, value) = answer.cookie().split_once('=').unwrap();
    value.to_owned()
}

/// The session of a request with these `Cookie` headers.
async fn show(app: &TestApp, lines: &[Vec<u8>]) -> Answer {
    let request = app.request(Method::GET, SESSION);
    let request = lines
        .iter()
        .fold(request, |request, line| request.bytes("cookie", line));
    request.send().await
}

async fn shown(app: &TestApp, cookies: &str) -> Answer {
    show(app, &[cookies.as_bytes().to_vec()]).await
}

#[actix_web::test]
async fn a_name_that_only_decodes_to_the_cookies_name_is_another_cookie() {
    let app = TestApp::start().await;
    let attacker = session_of(&app, "attacker").await;
    let victim = session_of(&app, "victim").await;
    for other in [
        "%5F_Host-imgwire_gate",
        "%5f%5FHost-imgwire_gate",
        "__Host%2Dimgwire_gate",
        "__host-imgwire_gate",
        "__Host-imgwire_gat%65",
        "\u{a0}__Host-imgwire_gate",
        "\u{2003}__Host-imgwire_gate",
        "\"__Host-imgwire_gate\"",
    ] {
        for cookies in [
            format!("{other}={attacker}; {NAME}={victim}"),
            format!("{NAME}={victim}; {other}={attacker}"),
        ] {
            let answer = shown(&app, &cookies).await;
            assert_eq!(answer.json["subject"], "victim", "{cookies}: {answer:?}");
            let ask = app.ask().bytes("cookie", cookies.as_bytes());
            ask.send().await.assert_token();
        }
        // Alone it neither signs a user in nor out.
        let alone = format!("{other}={attacker}");
        shown(&app, &alone).await.assert_error(401, "not_signed_in");
        let end = app.request(Method::DELETE, SESSION);
        let end = end.bytes("cookie", alone.as_bytes()).send().await;
        assert_eq!((end.status.as_u16(), end.header("set-cookie")), (204, ""));
    }
}

#[actix_web::test]
async fn the_value_of_a_cookie_is_not_decoded() {
    let app = TestApp::start().await;
    let value = session_of(&app, "user_1").await;
    let first = value.bytes().next().unwrap();
    let encoded = format!("{NAME}=%{first:02X}{}", &value[1..]);
    shown(&app, &encoded)
        .await
        .assert_error(401, "not_signed_in");
}

/// A gate that reads three cookies: the session's, one with a JWT, and one that it forwards to the app.
async fn with_three_cookies(service: &Service) -> TestApp {
    service.answer("/session", Reply::json(&json!({ "id": "user_1" })));
    let site = remote_session(&format!("{}/session", service.url), ["cookie:sid"], "/id");
    Gate::accepting(["app", "site", "browser"])
        .identity("site", site)
        .start()
        .await
}

#[actix_web::test]
async fn two_cookies_of_one_name_are_refused_and_an_empty_one_is_ignored() {
    let service = Service::start();
    let app = with_three_cookies(&service).await;
    let token = Token::of("user_1").sign();
    let session = session_of(&app, "user_1").await;
    for (name, value) in [
        (NAME, session.as_str()),
        ("__session", &token),
        ("sid", "1"),
    ] {
        let ask = async |lines: &[String]| {
            let request = lines
                .iter()
                .fold(app.ask(), |request, line| request.header("cookie", line));
            request.send().await
        };
        let full = format!("{name}={value}");
        let empty = format!("{name}=");
        for good in [
            vec![full.clone()],
            vec![format!("{full}; {empty}")],
            vec![format!("{empty}; {full}")],
            vec![format!("{empty};{empty} ; \t{name} =\t{value} ;{empty}")],
            vec![empty.clone(), full.clone(), empty.clone()],
        ] {
            let answer = ask(&good).await;
            assert_eq!(answer.status, 200, "{good:?}: {answer:?}");
        }
        for bad in [
            vec![format!("{full}; {full}")],
            vec![format!("{full}; {name}=x")],
            vec![format!("{name}=x; {full}; {empty}")],
            vec![full.clone(), full.clone()],
        ] {
            let answer = ask(&bad).await;
            answer.assert_error(401, "invalid_credentials");
        }
        for absent in [vec![empty.clone()], vec![format!("{empty}; {empty}")]] {
            let answer = ask(&absent).await;
            answer.assert_error(401, "not_signed_in");
        }
    }
    // With two session cookies, no session can be shown or ended.
    let two = format!("{NAME}={session}; {NAME}=x");
    for method in [Method::GET, Method::DELETE] {
        let request = app.request(method, SESSION).header("cookie", &two);
        let answer = request.send().await;
        answer.assert_error(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn unrelated_cookies_with_any_bytes_are_ignored() {
    let service = Service::start();
    let app = with_three_cookies(&service).await;
    let token = Token::of("user_1").sign();
    let session = session_of(&app, "user_1").await;
    let noise: [&[u8]; 12] = [
        b"n\xe4me=J\xfcrgen",
        b"name=\xff\xfe\x80",
        b"quoted=\"a; b\"; c=\"",
        b"\"",
        b"=",
        b"=value",
        b"no equals sign",
        b"json={\"a\":[1,2]}",
        b"x=1; x=2; x=3",
        b"%ZZ=%",
        b";;; ;",
        b"sids=1; sid2=2; xsid=3; __sessions=4",
    ];
    for (name, value) in [
        (NAME, session.as_str()),
        ("__session", &token),
        ("sid", "1"),
    ] {
        let full = format!("{name}={value}").into_bytes();
        for noise in noise {
            let joined = [noise, b"; ", &full, b"; ", noise].concat();
            for lines in [
                vec![joined],
                vec![noise.to_vec(), full.clone(), noise.to_vec()],
            ] {
                let request = lines
                    .iter()
                    .fold(app.ask(), |request, line| request.bytes("cookie", line));
                let answer = request.send().await;
                assert_eq!(answer.status, 200, "{name} {noise:?}: {answer:?}");
            }
        }
    }
    for noise in noise {
        let answer = app.ask().bytes("cookie", noise).send().await;
        answer.assert_error(401, "not_signed_in");
        let bearer = app.ask().bytes("cookie", noise).bearer(&token).send().await;
        bearer.assert_token();
    }
    // The app gets only the cookie that the config forwards.
    for request in service.seen("/session") {
        assert_eq!(request.headers["cookie"], "sid=1");
    }
}

#[actix_web::test]
async fn a_cookie_of_a_token_or_session_with_invalid_text_is_refused() {
    let service = Service::start();
    let app = with_three_cookies(&service).await;
    for name in [NAME, "__session"] {
        let cookie = [name.as_bytes(), b"=J\xfcrgen"].concat();
        let answer = app.ask().bytes("cookie", &cookie).send().await;
        answer.assert_error(401, "invalid_credentials");
    }
}

/// One cookie of a generated header.
#[derive(Clone, Debug)]
enum Part {
    Session(usize),
    Empty,
    Changed(usize),
    Encoded(usize),
    Noise(Vec<u8>),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => (0..2_usize).prop_map(Part::Session),
        2 => Just(Part::Empty),
        1 => (0..2_usize).prop_map(Part::Changed),
        2 => (0..2_usize).prop_map(Part::Encoded),
        4 => prop::collection::vec(
            prop_oneof![
                prop::sample::select(b"=;\" %\t,_aH\xe4\xff\xc3\xbc".to_vec()),
                0x20..=0x7e_u8,
                0x80..=0xff_u8,
            ],
            0..12,
        )
        .prop_map(Part::Noise),
    ]
}

/// The gate reads the cookie to find the session, and actix-session reads it to find the state. Both must agree with the
/// test's own reader.
#[actix_web::test]
async fn the_gate_and_actix_session_always_read_the_same_session() {
    const USERS: [&str; 2] = ["attacker", "victim"];
    let app = TestApp::start().await;
    let sessions = [
        session_of(&app, USERS[0]).await,
        session_of(&app, USERS[1]).await,
    ];
    let written = |part: &Part| -> Vec<u8> {
        match part {
            Part::Session(user) => format!("{NAME}={}", sessions[*user]).into_bytes(),
            Part::Empty => format!("{NAME}=").into_bytes(),
            Part::Changed(user) => format!("{NAME}=A{}", sessions[*user]).into_bytes(),
            Part::Encoded(user) => {
                format!("%5F_Host-imgwire_gate={}", sessions[*user]).into_bytes()
            }
            Part::Noise(noise) => noise.clone(),
        }
    };
    let lines = prop::collection::vec(
        prop::collection::vec(
            (part(), prop::sample::select(vec!["", " ", "\t", "  "])),
            0..4,
        ),
        0..3,
    );
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = [0; 4];
    for _ in 0..1500 {
        let lines = lines.new_tree(&mut runner).unwrap().current();
        let lines: Vec<Vec<u8>> = lines
            .iter()
            .map(|parts| {
                let parts: Vec<_> = parts
                    .iter()
                    .map(|(part, space)| {
                        let space = space.as_bytes();
                        [space, &written(part), space].concat()
                    })
                    .collect();
                parts.join(&b';')
            })
            .collect();
        let values: Vec<_> = lines
            .iter()
            .flat_map(|line| line.split(|byte| *byte == b';'))
            .filter_map(|pair| {
                let pair = pair.trim_ascii().strip_prefix(NAME.as_bytes())?;
                let value = pair.trim_ascii_start().strip_prefix(b"=")?;
                Some(value.trim_ascii()).filter(|value| !value.is_empty())
            })
            .collect();
        let user = |value: &[u8]| sessions.iter().position(|of| of.as_bytes() == value);
        let answer = show(&app, &lines).await;
        let context = || format!("{:?}", String::from_utf8_lossy(&lines.join(&b'\n')));
        match values[..] {
            [] => answer.assert_error(401, "not_signed_in"),
            [value] => match user(value) {
                Some(user) => assert_eq!(answer.json["subject"], USERS[user], "{}", context()),
                None => assert_eq!(answer.status, 401, "{}", context()),
            },
            [..] => answer.assert_error(401, "invalid_credentials"),
        }
        seen[values.len().min(3)] += 1;
        // The session that actix-session ends is the same one, or none.
        let end = app.request(Method::DELETE, SESSION);
        let end = lines
            .iter()
            .fold(end, |request, line| request.bytes("cookie", line));
        let end = end.send().await;
        let ends = end.header("set-cookie").contains("Max-Age=0");
        let is_session = matches!(values[..], [value] if user(value).is_some());
        assert_eq!(ends, is_session, "{}", context());
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[actix_web::test]
async fn the_configured_cookie_attributes_are_set_on_sign_in_use_and_sign_out() {
    for (cookie, name, attributes) in [
        (
            json!({}),
            "__Host-imgwire_gate",
            "; Path=/; HttpOnly; Secure; SameSite=Lax",
        ),
        (
            json!({ "same_site": "none", "partitioned": true }),
            "__Host-imgwire_gate",
            "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned",
        ),
        (
            json!({ "name": "__Secure-gate", "domain": ".Example.com", "path": "/api/imgwire", "same_site": "strict" }),
            "__Secure-gate",
            "; Path=/api/imgwire; Domain=example.com; HttpOnly; Secure; SameSite=Strict",
        ),
        (
            json!({ "name": "a%5Fb|c", "secure": false }),
            "a%5Fb|c",
            "; Path=/; HttpOnly; SameSite=Lax",
        ),
    ] {
        let gate = Gate::standard()
            .session("cookie", cookie)
            .session("idle_ttl", "10m");
        let app = gate.start().await;
        let request = app.request(Method::POST, SESSION);
        let begun = request.bearer(&Token::of("user_1").sign()).send().await;
        let set = begun.header("set-cookie");
        assert!(set.starts_with(&format!("{name}=")), "{set}");
        assert!(
            set.ends_with(&format!("{attributes}; Max-Age=43200")),
            "{set}"
        );
        let ask = app.ask().header("cookie", begun.cookie());
        ask.send().await.assert_token();
        // A request that renews the session sets the same attributes.
        app.clock.advance(std::time::Duration::from_secs(300));
        let used = app.ask().header("cookie", begun.cookie()).send().await;
        used.assert_token();
        let set = used.header("set-cookie");
        assert!(
            set.ends_with(&format!("{attributes}; Max-Age=43200")),
            "{set}"
        );
        let end = app.request(Method::DELETE, SESSION);
        let end = end.header("cookie", used.cookie()).send().await;
        let removed = format!("{name}={attributes}; Max-Age=0");
        assert_eq!(end.header("set-cookie"), removed);
    }
}
