//! A store that comes back is used again within a second, however long and in which way it was away.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    backends::{Server, suite},
    helpers::{Gate, eventually},
    postgres::Postgres,
    real_parts::free_port,
    redis_server::Redis,
    scaling::quota,
    sentinels::Sentinels,
    store_hosts::Mute,
    tcp_proxy::{Network, TcpProxy},
    watched::Watched,
};

suite! {
    [
        a_server_that_was_killed_is_used_within_a_second_of_its_return,
        a_server_that_said_nothing_is_used_within_a_second_of_its_return,
        a_name_that_resolves_again_is_used_within_a_second,
    ]:
    in_redis: Redis,
    in_postgresql: Postgres,
}

/// Long enough for pauses that grow.
const OUTAGE: Duration = Duration::from_secs(6);
const SOON: Duration = Duration::from_secs(1);

/// The default timeout, which a probe of a mute host takes.
fn gate(url: &str) -> Gate {
    quota(url, 10_000, "month").set("stores.shared.timeout", "2s")
}

async fn is_away(gate: &Watched) {
    // A request finds it.
    eventually("the outage", async || {
        gate.ask().await == 500 && !gate.is_ready().await
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < OUTAGE {
        assert_eq!(gate.ask().await, 500);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The time until the gate uses its store.
async fn until_used(gate: &Watched) -> Duration {
    let began = Instant::now();
    eventually("its return", async || gate.ask().await == 200).await;
    began.elapsed()
}

/// Other tests use the machine too, so the best of two outages counts.
async fn returns_soon(gate: &Watched, mut away: impl AsyncFnMut(bool)) {
    gate.ready().await;
    let mut best = Duration::MAX;
    for _ in 0..2 {
        away(true).await;
        is_away(gate).await;
        away(false).await;
        best = best.min(until_used(gate).await);
        if best <= SOON {
            return;
        }
    }
    panic!("used after {best:?}");
}

async fn a_server_that_was_killed_is_used_within_a_second_of_its_return(mut server: impl Server) {
    let gate = Watched::start(&gate(&server.url())).await;
    returns_soon(&gate, async |is_away| match is_away {
        true => server.go_down(),
        false => server.come_up().await,
    })
    .await;
}

async fn drops(proxy: &TcpProxy, is_away: bool) {
    proxy.set(match is_away {
        true => Network::Drops,
        false => Network::Works,
    });
}

async fn a_server_that_said_nothing_is_used_within_a_second_of_its_return(server: impl Server) {
    let proxy = TcpProxy::before(server.port());
    let gate = Watched::start(&gate(&server.url_at(proxy.port()))).await;
    returns_soon(&gate, async |is_away| drops(&proxy, is_away).await).await;
}

/// The only host that works is the last one of three.
#[actix_web::test]
async fn postgresql_beside_mute_hosts_is_used_within_a_second_of_its_return() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let (mutes, proxy) = (
        [Mute::start(), Mute::start()],
        TcpProxy::before(server.port()),
    );
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/postgres",
        mutes[0].port(),
        mutes[1].port(),
        proxy.port()
    );
    let gate = Watched::start(&gate(&url)).await;
    returns_soon(&gate, async |is_away| drops(&proxy, is_away).await).await;
}

/// Only the last Sentinel answers.
#[actix_web::test]
async fn redis_behind_mute_sentinels_is_used_within_a_second_of_its_return() {
    let Some(server) = Redis::here() else { return };
    let (mutes, proxy) = (
        [Mute::start(), Mute::start()],
        TcpProxy::before(server.port()),
    );
    let sentinel = Sentinels::one(proxy.port());
    let url = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{},{}/counters",
        mutes[0].port(),
        mutes[1].port(),
        sentinel.addresses()
    );
    let gate = Watched::start(&gate(&url)).await;
    returns_soon(&gate, async |is_away| drops(&proxy, is_away).await).await;
}

async fn a_name_that_resolves_again_is_used_within_a_second(server: impl Server) {
    // Only root can give the gate its own host names.
    let may = Command::new("unshare").args(["-m", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    let port = free_port();
    let proxy = TcpProxy::at(([127, 0, 0, 2], port).into(), server.port());
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let known = "127.0.0.2 database.test\n";
    // In place, because the gate sees this file.
    let write = |text: &str| std::fs::write(&hosts, text).unwrap();
    write(known);
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", mount, hosts.to_str().unwrap()];
    let url = server.url_at(port).replace("127.0.0.1", "database.test");
    let gate = Watched::start_by(&gate(&url), &wrapper).await;
    returns_soon(&gate, async |is_away| {
        write(if is_away {
            "127.0.0.1 localhost\n"
        } else {
            known
        });
        // Kept connections end, so that the name is needed.
        proxy.set(Network::Resets);
        proxy.set(Network::Works);
    })
    .await;
}
