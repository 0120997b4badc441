//! Several gates on one store: limits are exact across them, even if a gate, the store or the network fails.

use std::{
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    backends::{Server, suite},
    helpers::{
        self, Emulator, Entry, Gate, Misbehaviour, TestApp, Token, eventually, rate_limit, within,
    },
    postgres::Postgres,
    process::GateProcess,
    redis_server::Redis,
    tcp_proxy::{Network, TcpProxy},
};

suite! {
    [
        three_gates_issue_exactly_the_quota,
        gates_that_are_killed_every_second_never_exceed_the_quota,
        a_server_that_is_killed_and_returns_keeps_its_counts,
        a_network_that_drops_delays_and_resets_never_exceeds_the_quota,
        gates_whose_clocks_differ_by_an_hour_share_the_windows,
    ]:
    in_redis: Redis,
    in_postgresql: Postgres,
}

const QUOTA: usize = 1000;
const CALLERS: usize = 200;

/// A gate for signed-in users with the store `shared` at `url`.
pub(crate) fn counting(url: &str) -> Gate {
    Gate::accepting(["app"]).store("shared", json!({ "url": url, "timeout": "500ms" }))
}

/// The same with a timeout that suffices on a busy machine, for tests in which no operation may fail.
pub(crate) fn patient(gate: Gate) -> Gate {
    gate.set("stores.shared.timeout", "10s")
}

/// One quota for all users.
pub(crate) fn quota(url: &str, limit: usize, window: &str) -> Gate {
    let quota = helpers::quota().per([""; 0]).limit(limit).window(window);
    counting(url)
        .policy("shared-quota", quota.store("shared"))
        .chain(["signed-in", "shared-quota"])
}

/// One rate limit for all users.
pub(crate) fn limit(url: &str, limit: Entry) -> Gate {
    counting(url)
        .policy("shared-limit", limit.per([""; 0]).store("shared"))
        .chain(["signed-in", "shared-limit"])
}

pub(crate) async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// Waits until a gate knows that its store answers.
pub(crate) async fn ready(gate: &TestApp) {
    eventually("the store", async || {
        gate.manage("/readyz").await.status == 200
    })
    .await;
}

pub(crate) async fn three(builder: impl Fn() -> Gate) -> [TestApp; 3] {
    let gates = [
        builder().start().await,
        builder().start().await,
        builder().start().await,
    ];
    for gate in &gates {
        ready(gate).await;
    }
    gates
}

/// How many tokens callers get who take turns at three gates until the quota is exhausted.
pub(crate) async fn issued_in_turn(gates: &[TestApp; 3], callers: usize) -> usize {
    let callers = (0..callers).map(async |caller| {
        let mut got = 0;
        for turn in caller.. {
            match status(&gates[turn % 3]).await {
                200 => got += 1,
                429 => break,
                other => panic!("{other}"),
            }
        }
        got
    });
    join_all(callers).await.into_iter().sum()
}

async fn three_gates_issue_exactly_the_quota(server: impl Server) {
    let url = server.url();
    let gates = three(|| patient(quota(&url, QUOTA, "month"))).await;
    assert_eq!(issued_in_turn(&gates, CALLERS).await, QUOTA);
}

/// Three gates in processes of their own, with a slow Imgwire.
struct Gates {
    _folder: TempDir,
    config: PathBuf,
    imgwire: Emulator,
    running: Vec<GateProcess>,
}

impl Gates {
    async fn start(url: &str) -> Self {
        let imgwire = Emulator::start().unwrap();
        imgwire.misbehave(Some(Misbehaviour::Slow(Duration::from_millis(400))));
        let folder = tempfile::tempdir().unwrap();
        let config = quota(url, QUOTA, "month").write(imgwire.url(), folder.path());
        let mut gates = Self {
            _folder: folder,
            config,
            imgwire,
            running: Vec::new(),
        };
        for _ in 0..3 {
            gates.running.push(gates.one().await);
        }
        gates
    }

    async fn one(&self) -> GateProcess {
        GateProcess::start_with(&self.config, &[], "warn,imgwire_gate=info", &[]).await
    }
}

/// Two hundred callers ask three gates while `havoc` runs, and then one caller takes the remaining tokens. Returns how
/// many tokens arrived.
async fn tokens_that_come_through(
    gates: &mut Gates,
    havoc: impl AsyncFnOnce(&mut Gates),
    until: Duration,
) -> usize {
    let token = Token::of("user_1").sign();
    let urls: Vec<String> = gates.running.iter().map(GateProcess::url).collect();
    let urls = Rc::new(std::cell::RefCell::new(urls));
    let began = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let (urls, token) = (urls.clone(), token.clone());
        async move {
            let mut got = 0;
            for turn in caller.. {
                if began.elapsed() > until {
                    break;
                }
                let url = urls.borrow()[turn % 3].clone();
                match GateProcess::ask_at(&url, &token).await {
                    Some(200) => got += 1,
                    Some(429) => tokio::time::sleep(Duration::from_millis(200)).await,
                    // The gate or the store is gone: ask another gate a little later.
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            got
        }
    });
    let watch = async {
        havoc(gates).await;
        *urls.borrow_mut() = gates.running.iter().map(GateProcess::url).collect();
    };
    let (got, ()) = join(join_all(callers), watch).await;
    let mut got: usize = got.into_iter().sum();
    assert!(got > 0 && got <= QUOTA, "{got}");
    // The remaining tokens can still be issued, and no more.
    gates.imgwire.misbehave(None);
    let url = gates.running[0].url();
    within(
        Duration::from_secs(60),
        "the last token",
        async || match GateProcess::ask_at(&url, &token).await {
            Some(200) => {
                got += 1;
                false
            }
            status => status == Some(429),
        },
    )
    .await;
    assert!(got <= QUOTA, "{got}");
    got
}

async fn gates_that_are_killed_every_second_never_exceed_the_quota(server: impl Server) {
    let mut gates = Gates::start(&server.url()).await;
    let havoc = async |gates: &mut Gates| {
        for round in 0..4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            gates.running[round % 3].signal("-KILL");
            gates.running[round % 3].end().await;
            gates.running[round % 3] = gates.one().await;
        }
    };
    let got = tokens_that_come_through(&mut gates, havoc, Duration::from_secs(5)).await;
    // Each of the four killed gates had a third of the callers, whose reservations are lost.
    assert!(got >= QUOTA - 4 * (CALLERS / 3 + 1), "{got}");
}

async fn a_server_that_is_killed_and_returns_keeps_its_counts(mut server: impl Server) {
    let mut gates = Gates::start(&server.url()).await;
    let havoc = async |_: &mut Gates| {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            server.go_down();
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.come_up().await;
        }
    };
    tokens_that_come_through(&mut gates, havoc, Duration::from_secs(5)).await;
}

async fn a_network_that_drops_delays_and_resets_never_exceeds_the_quota(server: impl Server) {
    let proxy = TcpProxy::before(server.port());
    let mut gates = Gates::start(&server.url_at(proxy.port())).await;
    let havoc = async |_: &mut Gates| {
        for network in [
            Network::Resets,
            Network::Works,
            Network::Drops,
            Network::Works,
            Network::Delays(Duration::from_millis(60)),
            Network::Resets,
            Network::Works,
        ] {
            tokio::time::sleep(Duration::from_millis(600)).await;
            proxy.set(network);
        }
    };
    tokens_that_come_through(&mut gates, havoc, Duration::from_secs(6)).await;
}

#[actix_web::test]
async fn a_rate_limit_across_three_gates_is_exact_within_one_attempt() {
    const INTERVAL: f64 = 0.05;
    const BURST: f64 = 10.0;
    let Some(server) = Redis::here() else { return };
    let settings = || rate_limit().limit(20).period("1s").burst(10);
    let gates = three(|| patient(limit(&server.url(), settings()))).await;
    let began = Instant::now();
    let callers = (0..12_usize).map(async |caller| {
        let mut times = Vec::new();
        while began.elapsed() < Duration::from_secs(3) {
            match status(&gates[caller % 3]).await {
                200 => times.push(began.elapsed().as_secs_f64()),
                429 => {}
                other => panic!("{other}"),
            }
        }
        times
    });
    let times: Vec<f64> = join_all(callers).await.concat();
    let last = times.iter().copied().fold(0.0, f64::max);
    let model = BURST + (last / INTERVAL).floor();
    let count = times.len() as f64;
    assert!((count - model).abs() <= 1.0, "{count} of {model}");
}

async fn gates_whose_clocks_differ_by_an_hour_share_the_windows(server: impl Server) {
    let url = &server.url();
    let hour = || Timestamp::now().as_second() / 3600;
    loop {
        let began = hour();
        let gates = [
            patient(quota(url, 20, "hour")).start().await,
            patient(quota(url, 20, "hour")).start().await,
        ];
        gates[1]
            .clock
            .set(Timestamp::now() + SignedDuration::from_hours(1));
        let mut got = 0;
        for turn in 0..60 {
            got += usize::from(status(&gates[turn % 2]).await == 200);
        }
        // The clock of one gate jumps back and forth.
        gates[0]
            .clock
            .set(Timestamp::now() - SignedDuration::from_hours(2));
        got += usize::from(status(&gates[0]).await == 200);
        gates[0]
            .clock
            .set(Timestamp::now() + SignedDuration::from_hours(2));
        got += usize::from(status(&gates[0]).await == 200);
        if hour() == began {
            assert_eq!(got, 20);
            // The management listener has its own connections.
            eventually("the same count", async || {
                let path = "/quota/shared-quota?key=";
                let counts = [gates[0].manage(path).await, gates[1].manage(path).await];
                counts.iter().all(|count| count.json["used"] == 20)
                    && counts[0].json == counts[1].json
            })
            .await;
            return;
        }
        // The hour ended meanwhile: repeat in the new hour.
        gates[0]
            .request_management(actix_web::http::Method::DELETE, "/quota/shared-quota?key=")
            .send()
            .await;
    }
}

#[actix_web::test]
async fn gates_whose_clocks_differ_by_an_hour_share_rate_limits_in_redis() {
    let Some(server) = Redis::here() else { return };
    let gates = three(|| patient(limit(&server.url(), rate_limit().limit(5)))).await;
    gates[1]
        .clock
        .set(Timestamp::now() + SignedDuration::from_hours(1));
    gates[2].clock.advance(Duration::from_secs(3600));
    let mut got = 0;
    for turn in 0..30 {
        got += usize::from(status(&gates[turn % 3]).await == 200);
    }
    assert_eq!(got, 5);
}
