//! Stores with several hosts, some of which do not respond: the store is up, and only the first operation waits.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use socket2::{Domain, Socket, Type};

use crate::{
    helpers::{Gate, TestApp, Token, eventually},
    members::{MEMBERS, QUERY, ask_for, asking},
    postgres::Postgres,
    real_parts::{Running, free_port},
    redis_server::Redis,
    scaling::{quota, ready},
    tcp_proxy::TcpProxy,
    watched::Watched,
};

/// Less than a third of the stores' timeout, which a host that does not respond would cost.
const SOON: Duration = Duration::from_millis(700);

/// A host that accepts connections and does not respond.
pub(crate) struct Mute(TcpListener);

impl Mute {
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        // The kernel accepts the connections, and nothing reads from them.
        Self(TcpListener::bind(address).unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// A host that drops every packet.
struct Blackhole {
    port: u16,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Blackhole {
    /// A listener whose queue is full, so that the kernel drops further connections.
    fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let port = address.as_socket().unwrap().port();
        while TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), SOON).is_ok_and(|stream| {
            waiting.push(Socket::from(stream));
            waiting.len() < 20
        }) {}
        assert!(waiting.len() < 20, "its queue has an end");
        Self {
            port,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// The same with a timeout that shows even on a busy machine.
fn slow(gate: Gate, store: &str) -> Gate {
    gate.set(&format!("stores.{store}.timeout"), "3s")
}

async fn ask(gate: &TestApp) -> (u16, Duration) {
    let began = Instant::now();
    let answer = gate.ask_as(&Token::of("user_1")).await;
    (answer.status.as_u16(), began.elapsed())
}

/// The gate becomes ready and serves, and no request waits for a host that does not respond.
async fn serves(gate: Gate) -> TestApp {
    let gate = slow(gate, "shared").start().await;
    ready(&gate).await;
    serves_at_once(&gate).await;
    gate
}

async fn serves_at_once(gate: &TestApp) {
    // Requests at both workers.
    for (status, took) in join_all((0..8).map(|_| ask(gate))).await {
        assert_eq!(status, 200);
        assert!(took < SOON, "{took:?}");
    }
}

#[actix_web::test]
async fn postgresql_serves_although_its_first_hosts_do_not_respond() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let (mute, blackhole) = (Mute::start(), Blackhole::start());
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/postgres",
        mute.port(),
        blackhole.port,
        server.port()
    );
    let gate = serves(quota(&url, 1000, "month")).await;
    // A request that needs a new connection does not wait either.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'imgwire-gate/%'";
    server.run(end).await;
    eventually("new connections", async || {
        let asked = join_all((0..8).map(|_| ask(&gate))).await;
        asked.iter().all(|(status, _)| *status == 200)
    })
    .await;
    serves_at_once(&gate).await;

    server.run(MEMBERS).await;
    let slow_query = format!("{QUERY} and (select pg_sleep(0.1)) is not null");
    let lookup = asking(&url, &slow_query).set("policies.member.timeout", "5s");
    let gate = slow(lookup, "app").start().await;
    ready(&gate).await;
    // Concurrent requests, each on its own connection.
    let users = (0..6).map(async |user| {
        let began = Instant::now();
        let answer = ask_for(&gate, &format!("user_{user}"), "ws_1").await;
        (answer.status.as_u16(), began.elapsed())
    });
    for (user, (status, took)) in join_all(users).await.into_iter().enumerate() {
        assert_eq!(status, if user == 1 { 200 } else { 403 }, "{user} {took:?}");
        assert!(took < SOON, "{took:?}");
    }
}

/// A gate for which `database` is a name of two addresses, of which the first does not respond.
async fn serves_by_the_second_address(url: impl Fn(u16) -> String, port: u16) {
    let first_port = free_port();
    let _mute = Mute::at(([127, 0, 0, 1], first_port).into());
    let _second = TcpProxy::at(([127, 0, 0, 2], first_port).into(), port);
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 database\n127.0.0.2 database\n").unwrap();
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", mount, hosts.to_str().unwrap()];
    let quota = slow(quota(&url(first_port), 1000, "month"), "shared");
    let gate = Watched::start_by(&quota, &wrapper).await;
    gate.ready().await;
    let asked = (0..8).map(async |_| {
        let began = Instant::now();
        (gate.ask().await, began.elapsed())
    });
    for (status, took) in join_all(asked).await {
        assert_eq!(status, 200);
        assert!(took < SOON, "{took:?}");
    }
    gate.was_never_down();
}

#[actix_web::test]
async fn a_name_is_reached_by_its_second_address_if_the_first_does_not_respond() {
    // Only root can give the gate its own host names.
    let may = Command::new("unshare").args(["-m", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    if let Some(server) = Redis::here() {
        serves_by_the_second_address(|port| format!("redis://database:{port}"), server.port())
            .await;
    }
    if let Some(server) = Postgres::here() {
        let url = |port| format!("postgres://postgres@database:{port}/postgres");
        serves_by_the_second_address(url, server.await.port()).await;
    }
}

#[actix_web::test]
async fn sentinels_serve_although_the_first_ones_do_not_respond() {
    let Some(primary) = Redis::here() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor counters 127.0.0.1 {} 1\n",
        folder.path().display(),
        primary.port(),
    );
    std::fs::write(&config, text).unwrap();
    let arguments = [config.to_str().unwrap(), "--sentinel"];
    let _sentinel = Running::start("redis-server", &arguments, &config);
    let (mute, blackhole) = (Mute::start(), Blackhole::start());
    let url = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{},127.0.0.1:{port}/counters",
        mute.port(),
        blackhole.port
    );
    let gate = serves(quota(&url, 1000, "month")).await;
    primary.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("new connections", async || ask(&gate).await.0 == 200).await;
    serves_at_once(&gate).await;
}

#[actix_web::test]
async fn a_cluster_serves_although_its_first_seeds_do_not_respond() {
    let Some(nodes) = Redis::cluster_here() else {
        return;
    };
    let (mute, blackhole) = (Mute::start(), Blackhole::start());
    let url = format!(
        "redis+cluster://127.0.0.1:{},127.0.0.1:{},{}",
        mute.port(),
        blackhole.port,
        nodes[0].address()
    );
    serves(quota(&url, 1000, "month")).await;
}
