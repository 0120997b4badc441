//! Outbound calls of every kind to a peer that answers wrongly.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    helpers::{Gate, Token, discovered_jwt},
    hostile_peer::{Act, Asked, HostilePeer, chunked, in_segments, interim, response},
    outbound_calls::{
        CALLS, Call, MOMENT, assert_right, every_user_gets_the_right_answer, gate_before,
    },
    signing::{SigningKey, set},
    traces::TracedGate,
};

#[actix_web::test]
async fn interim_responses_are_not_taken_for_the_answer() {
    for call in CALLS {
        let (gate, peer) = gate_before(call, "2s", |_, _, right| {
            vec![
                Act::Send(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
                Act::Pause(Duration::from_millis(30)),
                Act::Send(right),
            ]
        })
        .await;
        every_user_gets_the_right_answer(call, &gate, 8).await;
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
            let (gate, peer) = gate_before(call, "30s", move |_, asked, right| {
                let statuses: &[u16] = match asked.earlier % 3 {
                    0 => &[100],
                    1 => &[102, 103, 103, 199],
                    _ => &[103; 50],
                };
                let interims = statuses.iter().flat_map(|status| interim(*status));
                segmentation(interims.chain(right).collect())
            })
            .await;
            every_user_gets_the_right_answer(call, &gate, 4).await;
            assert!(peer.connections() <= 2, "{call:?}: connections are kept");
        }
    }
}

#[actix_web::test]
async fn bytes_after_a_response_end_its_connection() {
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
                // The end of the second response comes later.
                let late = bytes.split_off(bytes.len() - 5);
                vec![Act::Send(bytes), Act::Pause(MOMENT), Act::Send(late)]
            })
            .await;
            every_user_gets_the_right_answer(call, &gate, 6).await;
            assert_eq!(
                peer.connections(),
                6,
                "{call:?}: one request per connection"
            );
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
        every_user_gets_the_right_answer(call, &gate, 4).await;
    }
}

#[actix_web::test]
async fn an_unreadable_response_is_a_fault() {
    for call in CALLS {
        for (what, make) in unreadable() {
            let (gate, _peer) = gate_before(call, "300ms", move |call, asked, _| {
                let (_, body) = call.right(&call.user(asked));
                make(&body)
            })
            .await;
            // The request fails, and the gate does not claim that the user is forbidden.
            let answer = call.ask(&gate, "user_2").await;
            let is_refusal_by_design = call == Call::PlainPolicy && what == "another type";
            if !is_refusal_by_design {
                assert_eq!(answer.status, 500, "{call:?}, {what}: {answer:?}");
            }
        }
    }
}

type Make = fn(&str) -> Vec<Act>;

/// Responses that the gate cannot read.
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

/// Bodies that answer no kind of call.
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
async fn an_answer_of_another_form_is_a_fault_and_not_a_verdict() {
    for call in CALLS {
        if call == Call::PlainPolicy {
            // Its status is the answer.
            continue;
        }
        for body in WRONG {
            if call == Call::RemoteIdentity && body.is_empty() {
                // The app says that the user is not signed in.
                continue;
            }
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
async fn a_membership_answer_without_a_role_lets_no_user_in() {
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
        let gate = Call::Membership
            .builder(&peer.url(), "1s")
            .chain(["signed-in", "asked"]);
        let gate = gate.start().await;
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
        let gate = Call::Membership
            .builder(&peer.url(), "1s")
            .chain(["signed-in", "asked"]);
        let gate = gate.start().await;
        let answer = Call::Membership.ask(&gate, "user_2").await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
}

/// What the peer does with a request of the property test.
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
async fn none_of_twelve_thousand_requests_gets_the_answer_to_another() {
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
        // Most requests are answered, and most of them over connections that were used before.
        assert!(right > 1500, "{call:?}: {right}");
        assert!(
            peer.connections() < 1500,
            "{call:?}: {}",
            peer.connections()
        );
    }
}

#[actix_web::test]
async fn the_keys_of_an_issuer_are_read_despite_its_faulty_responses() {
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
    let gate = Gate::accepting(["idp"])
        .identity("idp", discovered_jwt(["ES256"], &peer.url()))
        .start()
        .await;
    let token = Token::of("user_1").with("iss", json!(peer.url()));
    let answer = gate.ask().bearer(&key.sign(&token)).send().await;
    answer.assert_token();
}

#[actix_web::test]
async fn a_faulty_trace_collector_does_not_affect_requests() {
    let peer = HostilePeer::start(|asked: &Asked| match asked.earlier {
        0 => vec![Act::Send(
            [interim(103), response(200, ""), response(200, "")].concat(),
        )],
        _ => vec![Act::Fall],
    });
    let gate = TracedGate::start(&peer.url()).await;
    for _ in 0..20 {
        let answer = gate.ask().bearer(&Token::of("user_1").sign()).send().await;
        answer.assert_token();
    }
    gate.end().await;
    assert!(peer.requests() >= 1);
}
