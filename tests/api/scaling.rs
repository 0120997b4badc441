//! Several gates on one store: what is exact across them, whatever dies on the way.

use std::{
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use imgwire_gate::sandbox::emulator::{Emulator, Misbehaviour};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::{
    backends::{Server, suite},
    helpers::{Recipe, TestApp, Token, eventually},
    postgres::Postgres,
    process::GateProcess,
    redis_server::Redis,
    tcp_proxy::{Network, TcpProxy},
};

suite! {
    [
        three_gates_issue_what_the_quota_allows_and_not_one_more,
        gates_that_are_killed_every_second_issue_no_token_too_many,
        a_server_that_is_killed_and_comes_back_counts_on,
        a_network_that_drops_delays_and_resets_lets_no_token_too_many_through,
        gates_whose_clocks_are_an_hour_apart_share_the_windows,
    ]:
    in_a_redis: Redis,
    in_a_postgresql: Postgres,
}

const QUOTA: usize = 1000;
const CALLERS: usize = 200;

/// A gate that counts in the store at `url`, by `policies` besides who is signed in.
pub(crate) fn counting(url: &str, policies: &str, chain: &str) -> Recipe {
    let recipe = Recipe::accepting("[\"app\"]", "");
    Recipe {
        more: format!("[stores.shared]\nurl = \"{url}\"\ntimeout = \"500ms\""),
        policies: format!("{}\n{policies}", recipe.policies),
        chain: chain.to_owned(),
        ..recipe
    }
}

/// The same with time enough on the busiest machine, where nothing is to fail.
pub(crate) fn patient(recipe: Recipe) -> Recipe {
    let more = recipe.more.replace("500ms", "10s");
    Recipe { more, ..recipe }
}

/// A quota for all together.
pub(crate) fn quota(url: &str, limit: usize, window: &str) -> Recipe {
    let policies = format!(
        r#"
        [policies.shared-quota]
        kind = "quota"
        per = []
        limit = {limit}
        window = "{window}"
        store = "shared"
        "#
    );
    counting(url, &policies, "[\"signed-in\", \"shared-quota\"]")
}

/// A rate limit for all together.
pub(crate) fn limit(url: &str, settings: &str) -> Recipe {
    let policies = format!(
        r#"
        [policies.shared-limit]
        kind = "rate_limit"
        per = []
        store = "shared"
        {settings}
        "#
    );
    counting(url, &policies, "[\"signed-in\", \"shared-limit\"]")
}

async fn status(gate: &TestApp) -> u16 {
    gate.ask_as(&Token::of("user_1")).await.status.as_u16()
}

/// Waits until a gate knows that its store answers.
pub(crate) async fn ready(gate: &TestApp) {
    eventually("the store", async || {
        gate.manage("/readyz").await.status == 200
    })
    .await;
}

async fn three(recipe: impl Fn() -> Recipe) -> [TestApp; 3] {
    let gates = [
        patient(recipe()).start().await,
        patient(recipe()).start().await,
        patient(recipe()).start().await,
    ];
    for gate in &gates {
        ready(gate).await;
    }
    gates
}

/// Three gates, and two hundred callers who take turns at them until nothing is left.
async fn three_gates_issue_what_the_quota_allows_and_not_one_more(server: impl Server) {
    let url = server.url();
    let gates = three(|| quota(&url, QUOTA, "month")).await;
    let callers = (0..CALLERS).map(async |caller| {
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
    let got: usize = join_all(callers).await.into_iter().sum();
    assert_eq!(got, QUOTA);
}

/// Three gates in processes of their own, before an Imgwire that takes its time.
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
        let config = folder.path().join("gate.toml");
        let recipe = quota(url, QUOTA, "month");
        std::fs::write(&config, recipe.config(imgwire.url(), folder.path())).unwrap();
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

/// Two hundred callers take what they get from three gates while `havoc` goes on, and what is left afterwards.
/// Returns how many tokens reached them.
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
                    // A gate that is gone, or a store that is: somebody else, a little later.
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
    // What was not lost with those who died is still there, and no more.
    gates.imgwire.misbehave(None);
    let url = gates.running[0].url();
    eventually("the last token", async || {
        match GateProcess::ask_at(&url, &token).await {
            Some(200) => {
                got += 1;
                false
            }
            status => status == Some(429),
        }
    })
    .await;
    assert!(got <= QUOTA, "{got}");
    got
}

async fn gates_that_are_killed_every_second_issue_no_token_too_many(server: impl Server) {
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
    // Each of four gates that died had a third of the callers, and what they had reserved is lost.
    assert!(got >= QUOTA - 4 * (CALLERS / 3 + 1), "{got}");
}

async fn a_server_that_is_killed_and_comes_back_counts_on(mut server: impl Server) {
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

async fn a_network_that_drops_delays_and_resets_lets_no_token_too_many_through(
    server: impl Server,
) {
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
async fn a_rate_limit_across_three_gates_is_within_one_of_what_one_would_count() {
    const INTERVAL: f64 = 0.05;
    const BURST: f64 = 10.0;
    let Some(server) = Redis::here() else { return };
    let settings = "limit = 20\nperiod = \"1s\"\nburst = 10";
    let gates = three(|| limit(&server.url(), settings)).await;
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

async fn gates_whose_clocks_are_an_hour_apart_share_the_windows(server: impl Server) {
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
        // And one that jumps.
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
            // The management listener has connections of its own.
            eventually("the same count", async || {
                let path = "/quota/shared-quota?key=";
                let counts = [gates[0].manage(path).await, gates[1].manage(path).await];
                counts.iter().all(|count| count.json["used"] == 20)
                    && counts[0].json == counts[1].json
            })
            .await;
            return;
        }
        // The hour ended meanwhile: once more, in the new one, with what is left of it.
        gates[0]
            .request_management(actix_web::http::Method::DELETE, "/quota/shared-quota?key=")
            .send()
            .await;
    }
}

#[actix_web::test]
async fn gates_whose_clocks_are_an_hour_apart_share_the_rate_limits_of_a_redis() {
    let Some(server) = Redis::here() else { return };
    let settings = "limit = 5\nperiod = \"1h\"";
    let gates = three(|| limit(&server.url(), settings)).await;
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
