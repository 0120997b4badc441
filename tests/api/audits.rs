//! `[imgwire] audit`: a running gate repeats what doctor tries at Imgwire.

use serde_json::{Value, json};

use crate::{
    doctor_setup::{Setup, protected},
    helpers::{CLIENT_KEY, ENVIRONMENT, Emulator, Endpoint, Gate, eventually, rate_limit},
    process::GateProcess,
    redis_server::Redis,
};

pub(crate) const POSSIBLE: &str = "uploads without this gate are possible";
pub(crate) const NO_LONGER: &str = "uploads without this gate are no longer possible";

pub(crate) fn audited() -> Gate {
    protected().imgwire("audit", "1h")
}

pub(crate) async fn metrics(gate: &GateProcess) -> String {
    let url = format!("{}/metrics", gate.management());
    let mut response = awc::Client::default().get(url).send().await.unwrap();
    let body = response.body().limit(1 << 20).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The value of a metric, given its name and labels; `None` if it is absent.
pub(crate) async fn metric(gate: &GateProcess, name: &str) -> Option<String> {
    let text = metrics(gate).await;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(str::to_owned)
}

pub(crate) async fn bypass(gate: &GateProcess) -> Option<String> {
    metric(gate, "imgwire_gate_bypass_possible").await
}

pub(crate) async fn failed(gate: &GateProcess) -> Option<String> {
    metric(gate, "imgwire_gate_audit_points{state=\"failed\"}").await
}

pub(crate) fn lines(gate: &GateProcess, message: &str) -> Vec<Value> {
    let lines = gate.lines().into_iter();
    lines.filter(|line| line["message"] == message).collect()
}

pub(crate) fn set_unsigned(imgwire: &Emulator, is_allowed: bool) {
    imgwire.change(|scenario| scenario.client_keys[0].allow_unsigned_upload = is_allowed);
}

pub(crate) async fn start(gate: &Gate, setup: &Setup) -> GateProcess {
    let config = gate.write(setup.imgwire.url(), setup.folder.path());
    GateProcess::start(&config, &[], "info").await
}

/// Reloads the config of a gate. A change of `audit` causes an audit.
pub(crate) fn reload(process: &GateProcess, gate: &Gate, setup: &Setup) {
    gate.write(setup.imgwire.url(), setup.folder.path());
    process.signal("-HUP");
}

#[actix_web::test]
async fn an_audit_reports_when_a_bypass_becomes_possible_and_when_that_ends() {
    let setup = Setup::new();
    let gate = start(&audited(), &setup).await;
    eventually("the first audit", async || {
        bypass(&gate).await.as_deref() == Some("0")
    })
    .await;
    assert_eq!(failed(&gate).await.as_deref(), Some("0"));
    assert_eq!(lines(&gate, POSSIBLE), [Value::Null; 0]);

    set_unsigned(&setup.imgwire, true);
    reload(&gate, &audited().imgwire("audit", "2h"), &setup);
    eventually("the bypass", async || {
        bypass(&gate).await.as_deref() == Some("1")
    })
    .await;
    assert_eq!(failed(&gate).await.as_deref(), Some("1"));
    reload(&gate, &audited().imgwire("audit", "3h"), &setup);
    eventually("another audit", async || {
        setup.imgwire.asked_at(Endpoint::Upload) == 3
    })
    .await;
    let begun = lines(&gate, POSSIBLE);
    assert_eq!(begun.len(), 1, "{}", gate.log());
    assert_eq!(begun[0]["level"], "ERROR");
    assert_eq!(begun[0]["part"], "imgwire.client_key");
    let remedy = begun[0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("allow_unsigned_upload"), "{remedy}");
    eventually("the deletion of its upload", async || {
        setup.imgwire.images(ENVIRONMENT).is_empty()
    })
    .await;

    set_unsigned(&setup.imgwire, false);
    reload(&gate, &audited().imgwire("audit", "4h"), &setup);
    eventually("its end", async || lines(&gate, NO_LONGER).len() == 1).await;
    assert_eq!(bypass(&gate).await.as_deref(), Some("0"));

    // Without a Client Key it is unknown, and without an audit there are no metrics.
    reload(&gate, &audited().without("imgwire.client_key"), &setup);
    eventually("an unknown state", async || bypass(&gate).await.is_none()).await;
    eventually("its points", async || {
        failed(&gate).await.as_deref() == Some("0")
    })
    .await;
    reload(&gate, &protected(), &setup);
    eventually("no audit", async || failed(&gate).await.is_none()).await;
    assert!(!gate.log().contains(CLIENT_KEY));
    // Both keys took effect without a restart.
    let restart = "changed settings take effect after a restart";
    assert_eq!(lines(&gate, restart), [Value::Null; 0]);
}

#[actix_web::test]
async fn other_failures_are_warnings() {
    let setup = Setup::new();
    setup
        .imgwire
        .change(|scenario| scenario.cors_origins.clear());
    let gate = start(&audited(), &setup).await;
    eventually("the audit", async || {
        failed(&gate).await.as_deref() == Some("1")
    })
    .await;
    // A thread of its own writes the log.
    eventually("its line", async || {
        !lines(&gate, "audit of Imgwire failed").is_empty()
    })
    .await;
    let failed = lines(&gate, "audit of Imgwire failed");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["level"], "WARN");
    assert_eq!(failed[0]["part"], "imgwire.cors_origins");
    assert!(
        failed[0]["remedy"]
            .as_str()
            .unwrap()
            .contains("CORS Origins")
    );
    assert_eq!(bypass(&gate).await.as_deref(), Some("0"));
}

#[actix_web::test]
async fn one_of_two_gates_that_share_a_redis_audits() {
    let Some(redis) = Redis::here() else { return };
    let setups = [Setup::new(), Setup::new()];
    let imgwire = &setups[0].imgwire;
    set_unsigned(imgwire, true);
    let shared = |every: &str| {
        let burst = rate_limit().per(["user"]).limit(30).store("cache");
        audited()
            .imgwire("audit", every)
            .store("cache", json!({ "url": redis.url() }))
            .policy("burst", burst)
    };
    let configs = setups
        .each_ref()
        .map(|setup| shared("1h").write(imgwire.url(), setup.folder.path()));
    let gates = [
        GateProcess::start(&configs[0], &[], "info").await,
        GateProcess::start(&configs[1], &[], "info").await,
    ];
    for gate in &gates {
        eventually("an attempt to get the lease", async || {
            let text = metrics(gate).await;
            text.contains("db_operation_name=\"lease\"")
        })
        .await;
    }
    let audits = || imgwire.asked_at(Endpoint::Upload);
    let auditing = async || {
        let states = [bypass(&gates[0]).await, bypass(&gates[1]).await];
        states.map(|state| state.as_deref() == Some("1"))
    };
    eventually("an audit", async || auditing().await.contains(&true)).await;
    let holder = usize::from(auditing().await[1]);
    let other = 1 - holder;
    assert!(!auditing().await[other]);
    assert_eq!(failed(&gates[other]).await, None);
    assert_eq!(audits(), 1);
    assert_eq!(lines(&gates[holder], POSSIBLE).len(), 1);
    assert_eq!(lines(&gates[other], POSSIBLE).len(), 0);

    // If the gate that audits dies, the other one takes over when the lease ends. A reload makes it try at once.
    gates[holder].signal("-KILL");
    let keys = redis.keys();
    let lease = keys.iter().find(|key| key.contains(":lease:audit:"));
    assert_eq!(redis.number(&["DEL", lease.unwrap()]), 1);
    shared("2h").write(imgwire.url(), setups[other].folder.path());
    gates[other].signal("-HUP");
    eventually("another audit", async || {
        bypass(&gates[other]).await.is_some()
    })
    .await;
    assert_eq!(audits(), 2);
    assert_eq!(lines(&gates[other], POSSIBLE).len(), 1);
}
