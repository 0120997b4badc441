//! Calls to other services that answer in every way but the right one: whatever they do, no answer reaches another
//! request, and nobody is let in by an answer that does not say so.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use imgwire_gate::sandbox::emulator::Emulator;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{
    helpers::{Answer, ROUTE, Recipe, TestApp, Token, eventually},
    hostile_peer::{Act, Asked, HostilePeer, chunked, in_segments, interim, response},
    process::GateProcess,
    signing::{SigningKey, set},
};

const MOMENT: Duration = Duration::from_millis(2);

/// A kind of outbound call on a request's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Membership,
    PlainPolicy,
    OpaPolicy,
    Introspection,
    RemoteIdentity,
    Imgwire,
}

const CALLS: [Call; 6] = [
    Call::Membership,
    Call::PlainPolicy,
    Call::OpaPolicy,
    Call::Introspection,
    Call::RemoteIdentity,
    Call::Imgwire,
];

/// A user of the tests: those with an even number may upload.
fn may_upload(user: &str) -> bool {
    let number = user
        .strip_prefix("user_")
        .and_then(|n| n.parse::<u32>().ok());
    number.is_some_and(|number| number % 2 == 0)
}

impl Call {
    /// A gate that makes this call at `url` for each request. Its rules tell the answers to two users apart.
    fn recipe(self, url: &str, timeout: &str) -> Recipe {
        let signed_in = "[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"app\"]";
        let own = r#"
            [policies.own]
            kind = "expression"
            allow = "subject.id == request.purpose"
        "#;
        let (identities, policies, chain) = match self {
            Self::Membership => (
                String::new(),
                format!(
                    r#"{signed_in}
                    [policies.asked]
                    kind = "workspace_member"
                    url = "{url}/members/{{workspace}}/{{user}}"
                    timeout = "{timeout}"
                    [policies.own]
                    kind = "expression"
                    allow = "workspace.role == subject.id"
                    "#
                ),
                r#"["signed-in", "asked", "own"]"#,
            ),
            Self::PlainPolicy | Self::OpaPolicy => (
                String::new(),
                format!(
                    r#"{signed_in}
                    [policies.asked]
                    kind = "remote"
                    url = "{url}/allow"
                    protocol = "{}"
                    timeout = "{timeout}"
                    "#,
                    if self == Self::OpaPolicy {
                        "opa"
                    } else {
                        "plain"
                    }
                ),
                r#"["signed-in", "asked"]"#,
            ),
            Self::Introspection => (
                format!(
                    r#"[identities.asked]
                    kind = "introspection"
                    url = "{url}/introspect"
                    client_id = "gate"
                    client_secret = {{ env = "TEST_SECRET" }}
                    timeout = "{timeout}"
                    "#
                ),
                format!("[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"asked\"]\n{own}"),
                r#"["signed-in", "own"]"#,
            ),
            Self::RemoteIdentity => (
                format!(
                    r#"[identities.asked]
                    kind = "remote"
                    url = "{url}/session"
                    forward = ["cookie:sid"]
                    subject = "/user/id"
                    timeout = "{timeout}"
                    "#
                ),
                format!("[policies.signed-in]\nkind = \"signed_in\"\naccept = [\"asked\"]\n{own}"),
                r#"["signed-in", "own"]"#,
            ),
            Self::Imgwire => (String::new(), signed_in.to_owned(), r#"["signed-in"]"#),
        };
        let recipe = Recipe::accepting("[]", &identities);
        Recipe {
            policies,
            chain: chain.to_owned(),
            base_url: (self == Self::Imgwire).then(|| url.to_owned()),
            imgwire: format!("timeout = \"{timeout}\"\nretries = 1"),
            ..recipe
        }
    }

    /// Asks for a token as `user`.
    async fn ask(self, gate: &TestApp, user: &str) -> Answer {
        let request = gate.ask();
        let request = match self {
            Self::Introspection => request.bearer(&format!("opaque-{user}")),
            Self::RemoteIdentity => request.header("cookie", &format!("sid={user}")),
            Self::Imgwire => request
                .bearer(&Token::of(user).sign())
                .header("traceparent", &traceparent(user)),
            _ => request.bearer(&Token::of(user).sign()),
        };
        request
            .json(&json!({ "workspace": "ws_1", "purpose": user }))
            .await
    }

    /// The user that a request of the gate is about.
    fn user(self, asked: &Asked) -> String {
        match self {
            Self::Membership => asked.target.rsplit('/').next().unwrap().to_owned(),
            Self::PlainPolicy | Self::OpaPolicy => {
                let facts: Value = serde_json::from_str(&asked.body).unwrap();
                let facts = if self == Self::OpaPolicy {
                    &facts["input"]
                } else {
                    &facts
                };
                facts["subject"]["id"].as_str().unwrap().to_owned()
            }
            Self::Introspection => {
                let (_, token) = asked.body.split_once("token=opaque-").unwrap();
                token.split('&').next().unwrap().to_owned()
            }
            Self::RemoteIdentity => asked.header("cookie").replace("sid=", ""),
            Self::Imgwire => {
                let id = asked.header("traceparent").split('-').nth(1).unwrap();
                format!("user_{}", u128::from_str_radix(id, 16).unwrap())
            }
        }
    }

    /// The status and the body of the right answer about a user.
    fn right(self, user: &str) -> (u16, String) {
        let allowed = may_upload(user);
        // Whom the gate takes for another is refused by the rule about purposes or roles.
        let name = if allowed { user } else { "somebody else" };
        match self {
            Self::Membership => (200, json!({ "role": name }).to_string()),
            Self::PlainPolicy => (if allowed { 200 } else { 403 }, "{}".to_owned()),
            Self::OpaPolicy => (200, json!({ "result": allowed }).to_string()),
            Self::Introspection => (200, json!({ "active": true, "sub": name }).to_string()),
            Self::RemoteIdentity => (200, json!({ "user": { "id": name } }).to_string()),
            Self::Imgwire => (200, json!({ "token": format!("ut_{user}") }).to_string()),
        }
    }

    /// An answer that would let in anybody whose request it reached.
    fn generous(self, user: &str) -> Vec<u8> {
        let (_, body) = self.right(user);
        response(200, &body)
    }

    /// Whether an answer of the gate to `user` is right.
    fn is_right(self, user: &str, answer: &Answer) -> bool {
        match self {
            Self::Imgwire => {
                answer.status == 200 && answer.json["uploadToken"] == format!("ut_{user}")
            }
            _ => answer.status == if may_upload(user) { 200 } else { 403 },
        }
    }
}

fn traceparent(user: &str) -> String {
    let number: u128 = user.strip_prefix("user_").unwrap().parse().unwrap();
    format!("00-{number:032x}-00000000000000aa-01")
}

/// A gate before a peer that does with each request what `script` makes of the right answer to it.
async fn gate_before(
    call: Call,
    timeout: &str,
    script: impl Fn(Call, &Asked, Vec<u8>) -> Vec<Act> + Send + Sync + 'static,
) -> (TestApp, HostilePeer) {
    let peer = HostilePeer::start(move |asked: &Asked| {
        let (status, body) = call.right(&call.user(asked));
        script(call, asked, response(status, &body))
    });
    let gate = call.recipe(&peer.url(), timeout).start().await;
    (gate, peer)
}

#[track_caller]
fn assert_right(call: Call, user: &str, answer: &Answer) {
    assert!(
        call.is_right(user, answer),
        "{call:?} for {user}: {answer:?}"
    );
}

/// User 1 may not upload, user 2 may, and so on.
async fn each_gets_its_own_answer(call: Call, gate: &TestApp, users: u32) {
    for number in 1..=users {
        let user = format!("user_{number}");
        assert_right(call, &user, &call.ask(gate, &user).await);
    }
}

#[actix_web::test]
async fn an_interim_response_is_not_the_answer() {
    for call in CALLS {
        let (gate, peer) = gate_before(call, "2s", |_, _, right| {
            vec![
                Act::Send(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
                Act::Pause(Duration::from_millis(30)),
                Act::Send(right),
            ]
        })
        .await;
        each_gets_its_own_answer(call, &gate, 8).await;
        assert!(peer.connections() <= 2, "{call:?}: connections are kept");
    }
}

#[actix_web::test]
async fn any_number_of_interim_responses_in_any_segmentation_is_skipped() {
    type Segmentation = fn(Vec<u8>) -> Vec<Act>;
    let segmentations: [Segmentation; 5] = [
        |bytes| vec![Act::Send(bytes)],
        |bytes| in_segments(&bytes, 1, Duration::ZERO),
        |bytes| in_segments(&bytes, 7, MOMENT),
        |bytes| in_segments(&bytes, 64, MOMENT),
        // The head of an interim response apart from its last byte, and the rest.
        |mut bytes| {
            let rest = bytes.split_off(interim(100).len() - 1);
            vec![Act::Send(bytes), Act::Pause(MOMENT), Act::Send(rest)]
        },
    ];
    for call in CALLS {
        for segmentation in segmentations {
            let (gate, peer) = gate_before(call, "5s", move |_, asked, right| {
                let statuses: &[u16] = match asked.earlier % 3 {
                    0 => &[100],
                    1 => &[102, 103, 103, 199],
                    _ => &[103; 50],
                };
                let interims = statuses.iter().flat_map(|status| interim(*status));
                segmentation(interims.chain(right).collect())
            })
            .await;
            each_gets_its_own_answer(call, &gate, 4).await;
            assert!(peer.connections() <= 2, "{call:?}: connections are kept");
        }
    }
}

#[actix_web::test]
async fn what_follows_a_response_ends_its_connection() {
    for call in CALLS {
        for chunks in [false, true] {
            let (gate, peer) = gate_before(call, "2s", move |call, asked, right| {
                let (status, body) = call.right(&call.user(asked));
                let mut bytes = if chunks {
                    chunked(status, &body)
                } else {
                    right
                };
                bytes.extend(call.generous("user_2"));
                // Cut within the second response, whose end comes later.
                let late = bytes.split_off(bytes.len() - 5);
                vec![Act::Send(bytes), Act::Pause(MOMENT), Act::Send(late)]
            })
            .await;
            each_gets_its_own_answer(call, &gate, 6).await;
            assert_eq!(peer.connections(), 6, "{call:?}: one request each");
        }
    }
}

#[actix_web::test]
async fn a_body_that_ends_with_the_connection_is_read_to_its_end() {
    for call in CALLS {
        let (gate, _peer) = gate_before(call, "2s", |call, asked, _| {
            let (status, body) = call.right(&call.user(asked));
            let (first, rest) = body.split_at(body.len() / 2);
            let head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n\r\n{first}");
            vec![
                Act::Send(head.into_bytes()),
                Act::Pause(MOMENT),
                Act::Send(rest.as_bytes().to_vec()),
                Act::Close,
            ]
        })
        .await;
        each_gets_its_own_answer(call, &gate, 4).await;
    }
}

#[actix_web::test]
async fn a_response_that_cannot_be_read_in_one_way_lets_nobody_in() {
    for call in CALLS {
        for (what, make) in unreadable() {
            let (gate, _peer) = gate_before(call, "300ms", move |call, asked, _| {
                let (_, body) = call.right(&call.user(asked));
                make(&body)
            })
            .await;
            // Nobody gets in, and it is not said that the user may not.
            let answer = call.ask(&gate, "user_2").await;
            let is_refusal_by_design = call == Call::PlainPolicy && what == "another type";
            if !is_refusal_by_design {
                assert_eq!(answer.status, 500, "{call:?}, {what}: {answer:?}");
            }
        }
    }
}

type Make = fn(&str) -> Vec<Act>;

/// Responses that are none.
fn unreadable() -> Vec<(&'static str, Make)> {
    vec![
        ("silence", |_| vec![Act::Fall]),
        ("a reset", |_| vec![Act::Reset]),
        ("an end", |_| vec![Act::Close]),
        ("an interim response alone", |_| {
            vec![Act::Send(interim(103)), Act::Close]
        }),
        ("another protocol", |body| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n";
            vec![Act::Send(head.into()), Act::Send(response(200, body))]
        }),
        ("half a head", |_| {
            vec![
                Act::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()),
                Act::Close,
            ]
        }),
        ("a body that breaks off", |body| {
            let mut bytes = response(200, body);
            bytes.pop();
            vec![Act::Send(bytes), Act::Reset]
        }),
        ("two lengths", |body| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-length: 1\r\n\r\n{body}",
                body.len()
            );
            vec![Act::Send(head.into_bytes())]
        }),
        ("a length and chunks", |body| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{body}",
                body.len()
            );
            vec![Act::Send(head.into_bytes())]
        }),
        ("10 MB", |_| {
            let text = format!("{{\"role\":\"{}\"}}", "x".repeat(10_000_000));
            vec![Act::Send(response(200, &text))]
        }),
        ("a head of 10 MB", |_| {
            let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(10_000_000));
            vec![Act::Send(head.into_bytes())]
        }),
        ("interim responses without end", |_| {
            (0..10_000).map(|_| Act::Send(interim(103))).collect()
        }),
        ("noise", |_| {
            vec![Act::Send(b"SSH-2.0-OpenSSH\r\n".to_vec()), Act::Close]
        }),
        ("another status", |body| {
            vec![Act::Send(response(302, body))]
        }),
        ("a server error", |body| {
            vec![Act::Send(response(503, body))]
        }),
    ]
}

/// Bodies that are not what a service is asked for, whatever it is asked.
const WRONG: [&str; 14] = [
    "",
    "[]",
    "7",
    "true",
    "\"owner\"",
    "<!doctype html><title>Sign in</title>",
    "{\"role\":\"user_2\"",
    "{\"role\":7,\"result\":\"true\",\"active\":\"true\",\"sub\":\"user_2\",\"user\":{\"id\":{}},\"token\":7}",
    "{\"role\":{\"name\":\"user_2\"},\"result\":1,\"active\":1,\"sub\":\"user_2\",\"user\":{\"id\":[]},\"token\":null}",
    "{\"role\":[\"user_2\",7],\"result\":[true],\"active\":[true],\"sub\":\"user_2\",\"user\":{\"id\":true},\"token\":[]}",
    "{\"role\":\"x\",\"role\":\"user_2\",\"result\":false,\"result\":true,\"active\":false,\"active\":true,\"user\":{\"id\":\"x\",\"id\":\"user_2\"},\"token\":\"a\",\"token\":\"b\"}",
    "{\"role\":\"user_2\"}{\"role\":\"user_2\"}",
    "{\"role\":false,\"result\":{},\"active\":null,\"user\":{\"id\":1.5},\"token\":\"\"}",
    "\u{feff}{\"role\":\"user_2\",\"result\":true,\"active\":true,\"sub\":\"user_2\",\"user\":{\"id\":\"user_2\"},\"token\":\"ut_user_2\"}",
];

#[actix_web::test]
async fn an_answer_of_another_form_is_a_fault_and_no_verdict() {
    for call in CALLS {
        if call == Call::PlainPolicy {
            // Its status is the answer.
            continue;
        }
        for body in WRONG {
            let (gate, _peer) = gate_before(call, "1s", move |_, _, _| {
                vec![Act::Send(response(200, body))]
            })
            .await;
            let answer = call.ask(&gate, "user_2").await;
            assert_eq!(answer.status, 500, "{call:?}, {body}: {answer:?}");
        }
    }
}

#[actix_web::test]
async fn a_membership_answer_that_grants_nothing_lets_nobody_in() {
    for body in [
        "[]",
        "{}",
        "{\"error\":\"not a member\"}",
        "{\"member\":false}",
        "{\"roles\":[\"owner\"]}",
        "null",
    ] {
        let peer = HostilePeer::start(move |_: &Asked| vec![Act::Send(response(200, body))]);
        // Any role is enough.
        let recipe = Call::Membership.recipe(&peer.url(), "1s");
        let chain = r#"["signed-in", "asked"]"#.to_owned();
        let gate = Recipe { chain, ..recipe }.start().await;
        let answer = Call::Membership.ask(&gate, "user_2").await;
        answer.assert_error(500, "internal");
    }
    for (body, status) in [
        ("{\"role\":\"owner\"}", 200),
        ("{\"role\":[\"owner\",\"editor\"]}", 200),
        ("{\"role\":[]}", 200),
        ("{\"role\":null,\"since\":2020}", 200),
    ] {
        let peer = HostilePeer::start(move |_: &Asked| vec![Act::Send(response(200, body))]);
        let recipe = Call::Membership.recipe(&peer.url(), "1s");
        let chain = r#"["signed-in", "asked"]"#.to_owned();
        let gate = Recipe { chain, ..recipe }.start().await;
        let answer = Call::Membership.ask(&gate, "user_2").await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
}

/// A gate whose eight kept connections have all fallen silent, while new ones are served.
async fn eight_silent_connections(call: Call, timeout: &str) -> (TestApp, HostilePeer) {
    let is_silent = Arc::new(AtomicBool::new(false));
    let old = Arc::new(AtomicUsize::new(usize::MAX));
    let (silent, oldest) = (is_silent.clone(), old.clone());
    let (gate, peer) = gate_before(call, timeout, move |_, asked, right| {
        if silent.load(Ordering::SeqCst) && asked.connection < oldest.load(Ordering::SeqCst) {
            return vec![Act::Fall];
        }
        vec![Act::Pause(Duration::from_millis(100)), Act::Send(right)]
    })
    .await;
    let together = (0..16).map(|number| {
        let gate = &gate;
        async move { call.ask(gate, &format!("user_{}", 2 * number)).await }
    });
    for answer in futures_util::future::join_all(together).await {
        assert_eq!(answer.status, 200, "{call:?}: {answer:?}");
    }
    assert!(peer.connections() >= 8, "{}", peer.connections());
    old.store(peer.connections(), Ordering::SeqCst);
    is_silent.store(true, Ordering::SeqCst);
    (gate, peer)
}

#[actix_web::test]
async fn kept_connections_that_fell_silent_cost_no_request_that_may_be_repeated() {
    for call in [
        Call::Membership,
        Call::Introspection,
        Call::RemoteIdentity,
        Call::Imgwire,
    ] {
        let (gate, _peer) = eight_silent_connections(call, "1s").await;
        let began = Instant::now();
        each_gets_its_own_answer(call, &gate, 8).await;
        // Half of one timeout, and all other silent connections are dropped.
        let took = began.elapsed();
        assert!(took < Duration::from_millis(2500), "{call:?}: {took:?}");
    }
}

#[actix_web::test]
async fn kept_connections_that_fell_silent_cost_one_request_that_must_not_be_repeated() {
    let (gate, peer) = eight_silent_connections(Call::PlainPolicy, "500ms").await;
    let before = peer.requests();
    let first = Call::PlainPolicy.ask(&gate, "user_2").await;
    first.assert_error(500, "internal");
    assert_eq!(peer.requests(), before + 1, "it is not sent twice");
    each_gets_its_own_answer(Call::PlainPolicy, &gate, 8).await;
    assert_eq!(peer.requests(), before + 9);
}

#[actix_web::test]
async fn a_call_that_may_have_arrived_is_repeated_only_if_it_reads_or_creates_a_token() {
    for call in CALLS {
        // The second request on a connection is read, and the connection reset.
        let (gate, peer) = gate_before(call, "2s", |_, asked, right| {
            if asked.earlier == 1 {
                vec![Act::Reset]
            } else {
                vec![Act::Send(right)]
            }
        })
        .await;
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(call.ask(&gate, "user_2").await.status.as_u16());
        }
        let faults = statuses.iter().filter(|status| **status == 500).count();
        if matches!(call, Call::PlainPolicy | Call::OpaPolicy) {
            assert!(faults > 0, "{call:?}: {statuses:?}");
            assert_eq!(peer.requests(), 8, "{call:?}: none is sent twice");
        } else {
            assert_eq!(faults, 0, "{call:?}: {statuses:?}");
        }
    }
}

#[actix_web::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    for call in CALLS {
        let (gate, peer) = gate_before(call, "2s", |_, _, right| {
            vec![Act::Send(right), Act::Pause(MOMENT), Act::Close]
        })
        .await;
        for number in 1..=6 {
            assert_right(call, "user_2", &call.ask(&gate, "user_2").await);
            assert_eq!(peer.requests(), number, "{call:?}");
            tokio::time::sleep(MOMENT * 5).await;
        }
    }
}

#[actix_web::test]
async fn a_slow_service_takes_no_connection_from_another() {
    let slow = HostilePeer::start(|_: &Asked| vec![Act::Fall]);
    let quick = HostilePeer::start(|asked: &Asked| {
        let (status, body) = Call::RemoteIdentity.right(&Call::RemoteIdentity.user(asked));
        vec![Act::Send(response(status, &body))]
    });
    let quickly = Call::RemoteIdentity.recipe(&quick.url(), "2s");
    let slowly = format!(
        r#"
        [policies.somewhere-else]
        kind = "remote"
        url = "{}/allow"
        timeout = "10s"
        [policies.anyone]
        kind = "signed_in"
        accept = ["app"]
        [[routes]]
        path = "/slow"
        policies = ["anyone", "somewhere-else"]
        "#,
        slow.url()
    );
    let gate = Recipe {
        policies: format!("{}\n{slowly}", quickly.policies),
        ..quickly
    }
    .start()
    .await;
    let gate = &gate;
    let flood = awc::Client::builder()
        .connector(awc::Connector::new().limit(0))
        .finish();
    // More than all workers have connections to one service.
    let hanging = stream::iter(0..400).for_each_concurrent(None, |number| {
        let token = Token::of(&format!("user_{number}")).sign();
        let request = flood.post(format!("{}/slow", gate.url)).bearer_auth(token);
        async move { drop(request.send().await) }
    });
    let quick_ones = async {
        eventually("the flood", async || slow.requests() >= 256).await;
        let began = Instant::now();
        each_gets_its_own_answer(Call::RemoteIdentity, gate, 20).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    };
    tokio::select! {
        () = hanging => panic!("the slow service answered"),
        () = quick_ones => {}
    }
}

/// What may happen to a request in the property test.
fn misbehave(call: Call, asked: &Asked, right: Vec<u8>) -> Vec<Act> {
    let generous = call.generous("user_2");
    let (status, body) = call.right(&call.user(asked));
    let hints = |count: usize| interim(103).repeat(count);
    match fastrand::u8(0..24) {
        0 => vec![Act::Send(hints(1)), Act::Send(right)],
        1 => vec![Act::Send([hints(3), right].concat())],
        2 => in_segments(&[hints(2), right].concat(), 11, Duration::ZERO),
        3 => vec![Act::Send(hints(1)), Act::Pause(MOMENT), Act::Send(right)],
        4 => vec![Act::Send([right, generous].concat())],
        5 => vec![Act::Send([chunked(status, &body), generous].concat())],
        6 => {
            let half = right.len() / 2;
            vec![Act::Send(right[..half].to_vec()), Act::Reset]
        }
        7 => vec![Act::Reset],
        8 => vec![Act::Close],
        9 => vec![Act::Send(right), Act::Close],
        10 => vec![Act::Send(chunked(status, &body))],
        11 => vec![Act::Send([hints(1), right, hints(1)].concat())],
        12 if fastrand::u8(..) < 8 => vec![Act::Fall],
        13 => vec![Act::Send(response(503, &body))],
        _ => vec![Act::Send(right)],
    }
}

#[actix_web::test]
async fn of_twelve_thousand_requests_over_kept_connections_none_gets_the_answer_to_another() {
    for call in CALLS {
        let (gate, peer) = gate_before(call, "400ms", misbehave).await;
        let gate = &gate;
        let asked = stream::iter(0..2000_u32).map(|_| async move {
            let user = format!("user_{}", fastrand::u32(0..50));
            let answer = call.ask(gate, &user).await;
            (user, answer)
        });
        let answers: Vec<_> = asked.buffer_unordered(16).collect().await;
        let mut right = 0;
        for (user, answer) in answers {
            if answer.status != 500 {
                assert_right(call, &user, &answer);
                right += 1;
            }
        }
        // Most are answered, and most of them over connections that were used before.
        assert!(right > 1500, "{call:?}: {right}");
        assert!(
            peer.connections() < 1500,
            "{call:?}: {}",
            peer.connections()
        );
    }
}

#[actix_web::test]
async fn an_issuer_that_answers_badly_publishes_its_keys_all_the_same() {
    let key = SigningKey::new("one", Algorithm::ES256);
    let keys = set(&[&key]).to_string();
    let issuer = Arc::new(std::sync::Mutex::new(String::new()));
    let own = issuer.clone();
    let peer = HostilePeer::start(move |asked: &Asked| {
        let issuer = own.lock().unwrap().clone();
        let body = if asked.target == "/jwks" {
            keys.clone()
        } else {
            json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") }).to_string()
        };
        let bytes = [
            interim(103),
            interim(100),
            chunked(200, &body),
            response(200, "{}"),
        ]
        .concat();
        in_segments(&bytes, 13, Duration::ZERO)
    });
    *issuer.lock().unwrap() = peer.url();
    let identities = format!(
        r#"[identities.idp]
        kind = "jwt"
        algorithms = ["ES256"]
        issuer = "{}"
        discovery = true
        audience = ["imgwire-gate"]
        "#,
        peer.url()
    );
    let gate = Recipe::accepting(r#"["idp"]"#, &identities).start().await;
    let token = Token::of("user_1").with("iss", json!(peer.url()));
    let answer = gate.ask().bearer(&key.sign(&token)).send().await;
    answer.assert_token();
}

#[actix_web::test]
async fn a_collector_of_traces_that_answers_badly_disturbs_nobody() {
    let peer = HostilePeer::start(|asked: &Asked| match asked.earlier {
        0 => vec![Act::Send(
            [interim(103), response(200, ""), response(200, "")].concat(),
        )],
        _ => vec![Act::Fall],
    });
    let recipe = Recipe {
        more: format!("[telemetry]\notlp = \"{}\"", peer.url()),
        ..Recipe::default()
    };
    let mut gate = recipe.start().await;
    for _ in 0..20 {
        gate.ask_as(&Token::of("user_1")).await.assert_token();
    }
    gate.begin_stop();
    gate.stopped().await;
    assert!(peer.requests() >= 1);
}

/// An address that drops what is sent to it: a listener whose backlog is full.
struct Blackhole {
    port: u16,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Blackhole {
    fn at(host: &str) -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        let address: SocketAddr = format!("{host}:0").parse().unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = (0..4).map(|_| {
            let waiting = socket();
            waiting.set_nonblocking(true).unwrap();
            // Nobody accepts it.
            let _ = waiting.connect(&address);
            waiting
        });
        Self {
            port: address.as_socket().unwrap().port(),
            _waiting: waiting.collect(),
            _listener: listener,
        }
    }
}

#[actix_web::test]
async fn a_name_whose_first_address_drops_everything_is_reached_by_the_second() {
    if !crate::real_parts::are_here(&["unshare"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.71 localhost\n127.0.0.72 localhost\n").unwrap();
    // The gate alone sees these hosts.
    let script = format!(
        "mount --bind {} /etc/hosts && exec \"$0\" \"$@\"",
        hosts.display()
    );
    let wrapper = ["unshare", "--mount", "--map-root-user", "sh", "-c", &script];
    for call in [Call::Membership, Call::Introspection, Call::Imgwire] {
        let blackhole = Blackhole::at("127.0.0.71");
        let address = format!("127.0.0.72:{}", blackhole.port);
        let peer = HostilePeer::start_on(&address, move |asked: &Asked| {
            let (status, body) = call.right(&call.user(asked));
            vec![Act::Send(response(status, &body))]
        });
        let recipe = call.recipe(&format!("http://localhost:{}", blackhole.port), "2s");
        let config = folder.path().join(format!("{call:?}.toml"));
        let imgwire = Emulator::start().unwrap();
        let base_url = recipe.base_url.as_deref().unwrap_or(imgwire.url());
        std::fs::write(&config, recipe.config(base_url, folder.path())).unwrap();
        let gate = GateProcess::start_with(&config, &wrapper, "info", &[]).await;
        let began = Instant::now();
        for number in 1..=4 {
            let user = format!("user_{number}");
            let bearer = match call {
                Call::Introspection => format!("opaque-{user}"),
                _ => Token::of(&user).sign(),
            };
            let mut answer = awc::Client::default()
                .post(format!("{}{ROUTE}", gate.url()))
                .insert_header(("traceparent", traceparent(&user)))
                .bearer_auth(bearer)
                .send_json(&json!({ "workspace": "ws_1", "purpose": user }))
                .await
                .unwrap();
            let body = answer.body().await.unwrap();
            let expected = if call == Call::Imgwire || may_upload(&user) {
                200
            } else {
                403
            };
            assert_eq!(answer.status(), expected, "{call:?}: {body:?}");
        }
        assert!(peer.requests() >= 4);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{call:?}: {took:?}");
    }
}
