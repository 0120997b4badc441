//! Connections of outbound calls that fall silent, break, or are closed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::{
    helpers::{Emulator, ROUTE, TestApp, Token, eventually, remote_decision, signed_in},
    hostile_peer::{Act, Asked, HostilePeer, response},
    outbound_calls::{
        CALLS, Call, MOMENT, assert_right, every_user_gets_the_right_answer, gate_before,
        may_upload, traceparent,
    },
    process::GateProcess,
};

/// A gate whose eight kept connections have fallen silent, while new connections are served.
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
async fn silent_kept_connections_cost_no_request_that_may_be_repeated() {
    for call in [
        Call::Membership,
        Call::Introspection,
        Call::RemoteIdentity,
        Call::Imgwire,
    ] {
        let (gate, _peer) = eight_silent_connections(call, "1s").await;
        let began = Instant::now();
        every_user_gets_the_right_answer(call, &gate, 8).await;
        // One call waits half of its timeout, and then all other silent connections are dropped.
        let took = began.elapsed();
        assert!(took < Duration::from_millis(2500), "{call:?}: {took:?}");
    }
}

#[actix_web::test]
async fn silent_kept_connections_cost_one_request_that_must_not_be_repeated() {
    let (gate, peer) = eight_silent_connections(Call::PlainPolicy, "500ms").await;
    let before = peer.requests();
    let first = Call::PlainPolicy.ask(&gate, "user_2").await;
    first.assert_error(500, "internal");
    assert_eq!(peer.requests(), before + 1, "it is not sent twice");
    every_user_gets_the_right_answer(Call::PlainPolicy, &gate, 8).await;
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
    let elsewhere = remote_decision(&format!("{}/allow", slow.url())).timeout("10s");
    let gate = Call::RemoteIdentity
        .builder(&quick.url(), "2s")
        .policy("somewhere-else", elsewhere)
        .policy("any-user", signed_in(["app"]))
        .route("/slow", ["any-user", "somewhere-else"])
        .start()
        .await;
    let gate = &gate;
    let flood = awc::Client::builder()
        .connector(awc::Connector::new().limit(0))
        .finish();
    // More than all connections of all workers to one service.
    let hanging = stream::iter(0..400).for_each_concurrent(None, |number| {
        let token = Token::of(&format!("user_{number}")).sign();
        let request = flood.post(format!("{}/slow", gate.url)).bearer_auth(token);
        async move { drop(request.send().await) }
    });
    let quick_ones = async {
        eventually("the flood", async || slow.requests() >= 256).await;
        let began = Instant::now();
        every_user_gets_the_right_answer(Call::RemoteIdentity, gate, 20).await;
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

/// An address that drops every packet: a listener whose backlog is full.
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
            // The listener never accepts it.
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
async fn a_name_is_reached_by_its_second_address_if_the_first_drops_everything() {
    if !crate::real_parts::are_here(&["unshare"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.71 localhost\n127.0.0.72 localhost\n").unwrap();
    // Only the gate sees these hosts.
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
        let imgwire = Emulator::start().unwrap();
        let config = call
            .builder(&format!("http://localhost:{}", blackhole.port), "2s")
            .write(imgwire.url(), folder.path());
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
