//! What a running audit does when its settings, its store, Imgwire or the gate itself change meanwhile.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};

use crate::{
    audits::{
        NO_LONGER, POSSIBLE, audited, bypass, failed, lines, metric, metrics, reload, set_unsigned,
        start,
    },
    doctor_setup::{Setup, protected},
    helpers::{
        CLIENT_KEY, ClientKey, ENVIRONMENT, Endpoint, Gate, Misbehaviour, SERVER_API_KEY,
        eventually, rate_limit,
    },
    process::{GateProcess, program},
    redis_server::Redis,
};

const OTHER_KEY: &str = "ck_other";
const UNCLEAR: &str = "cannot tell whether uploads without this gate are possible";
const FAILED: &str = "audit of Imgwire failed";

fn slowly(setup: &Setup, endpoint: Endpoint) {
    let slow = Misbehaviour::Slow(Duration::from_secs(1));
    setup.imgwire.misbehave_at(endpoint, Some(slow));
}

async fn asked(setup: &Setup, endpoint: Endpoint, times: usize) {
    eventually("a request", async || {
        setup.imgwire.asked_at(endpoint) >= times
    })
    .await;
}

async fn is_reloaded(gate: &GateProcess) {
    eventually("the reload", async || {
        !lines(gate, "config reloaded").is_empty()
    })
    .await;
}

async fn has_bypass(gate: &GateProcess, value: &str) {
    eventually("the metric", async || {
        bypass(gate).await.as_deref() == Some(value)
    })
    .await;
}

/// Gates that share a lease.
fn sharing(redis: &Redis, gate: Gate) -> Gate {
    let burst = rate_limit().per(["user"]).limit(30).store("cache");
    gate.store("cache", json!({ "url": redis.url() }))
        .policy("burst", burst)
}

fn leases(redis: &Redis) -> Vec<String> {
    let keys = redis.keys().into_iter();
    keys.filter(|key| key.contains(":lease:audit")).collect()
}

#[actix_web::test]
async fn a_reload_without_audit_discards_the_audit_that_runs() {
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    slowly(&setup, Endpoint::Upload);
    let gate = start(&audited(), &setup).await;
    asked(&setup, Endpoint::Upload, 1).await;
    reload(&gate, &protected(), &setup);
    is_reloaded(&gate).await;
    eventually("the end of the audit", async || {
        !lines(&gate, FAILED).is_empty()
    })
    .await;
    assert_eq!(bypass(&gate).await, None);
    assert_eq!(failed(&gate).await, None);
    assert_eq!(lines(&gate, POSSIBLE), [Value::Null; 0]);
    assert_eq!(setup.imgwire.images(ENVIRONMENT), [Value::Null; 0]);
}

#[actix_web::test]
async fn a_client_key_that_is_replaced_during_an_audit_is_audited_at_once() {
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    setup
        .imgwire
        .change(|scenario| scenario.client_keys.push(ClientKey::new(OTHER_KEY)));
    slowly(&setup, Endpoint::Upload);
    let gate = start(&audited(), &setup).await;
    asked(&setup, Endpoint::Upload, 1).await;
    reload(&gate, &audited().imgwire("client_key", OTHER_KEY), &setup);
    is_reloaded(&gate).await;
    setup.imgwire.misbehave_at(Endpoint::Upload, None);
    has_bypass(&gate, "0").await;
    assert_eq!(setup.imgwire.asked_at(Endpoint::Upload), 2);
    assert_eq!(lines(&gate, POSSIBLE), [Value::Null; 0]);
}

#[actix_web::test]
async fn a_bypass_stays_known_until_an_upload_is_refused() {
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    let gate = start(&audited(), &setup).await;
    has_bypass(&gate, "1").await;

    let limited = Misbehaviour::Status(429, None);
    setup
        .imgwire
        .misbehave_at(Endpoint::Upload, Some(limited.clone()));
    reload(&gate, &audited().imgwire("audit", "2h"), &setup);
    eventually("an unknown result", async || {
        lines(&gate, UNCLEAR).len() == 1
    })
    .await;
    assert_eq!(bypass(&gate).await.as_deref(), Some("1"));
    assert_eq!(failed(&gate).await.as_deref(), Some("0"));
    let unclear = lines(&gate, UNCLEAR);
    assert_eq!(unclear[0]["level"], "WARN");
    assert_eq!(unclear[0]["part"], "imgwire.client_key");
    assert!(unclear[0]["remedy"].is_string());

    setup
        .imgwire
        .misbehave_at(Endpoint::Images, Some(limited.clone()));
    reload(&gate, &audited().imgwire("audit", "3h"), &setup);
    eventually("an audit that gets nothing", async || {
        let not_tried = "imgwire_gate_audit_points{state=\"not tried\"}";
        metric(&gate, not_tried).await.as_deref() == Some("5")
    })
    .await;
    assert_eq!(bypass(&gate).await.as_deref(), Some("1"));
    setup.imgwire.misbehave_at(Endpoint::Images, None);
    setup.imgwire.misbehave_at(Endpoint::Upload, None);
    set_unsigned(&setup.imgwire, false);
    reload(&gate, &audited().imgwire("audit", "4h"), &setup);
    has_bypass(&gate, "0").await;
    eventually("the news", async || lines(&gate, NO_LONGER).len() == 1).await;
    // The second audit in a row that could not tell wrote no line.
    assert_eq!(lines(&gate, UNCLEAR).len(), 1);

    setup.imgwire.misbehave_at(Endpoint::Upload, Some(limited));
    reload(&gate, &audited().imgwire("audit", "5h"), &setup);
    eventually("an unknown result", async || {
        lines(&gate, UNCLEAR).len() == 2
    })
    .await;
    assert_eq!(bypass(&gate).await, None);
    assert_eq!(lines(&gate, POSSIBLE).len(), 1);
}

#[actix_web::test]
async fn an_audit_without_a_client_key_warns_once() {
    let setup = Setup::new();
    let without = || audited().without("imgwire.client_key");
    let gate = start(&without(), &setup).await;
    eventually("the first audit", async || lines(&gate, UNCLEAR).len() == 1).await;
    setup
        .imgwire
        .change(|scenario| scenario.cors_origins.clear());
    reload(&gate, &without().imgwire("audit", "2h"), &setup);
    eventually("the next audit", async || {
        failed(&gate).await.as_deref() == Some("1")
    })
    .await;
    reload(&gate, &audited(), &setup);
    has_bypass(&gate, "0").await;
    assert_eq!(lines(&gate, UNCLEAR).len(), 1);
}

#[actix_web::test]
async fn the_metrics_stay_while_the_store_of_the_lease_is_down() {
    let Some(mut redis) = Redis::here() else {
        return;
    };
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    let gate = start(&sharing(&redis, audited()), &setup).await;
    has_bypass(&gate, "1").await;
    redis.go_down();
    let later = audited().imgwire("audit", "2h");
    reload(&gate, &sharing(&redis, later), &setup);
    eventually("a failed renewal", async || {
        lines(&gate, "cannot audit Imgwire: the store of the lease fails").len() == 1
    })
    .await;
    assert_eq!(bypass(&gate).await.as_deref(), Some("1"));
    assert_eq!(failed(&gate).await.as_deref(), Some("1"));
}

#[actix_web::test]
async fn deployments_with_other_client_keys_have_leases_of_their_own() {
    let Some(redis) = Redis::here() else { return };
    let (setup, other_folder) = (Setup::new(), tempfile::tempdir().unwrap());
    setup
        .imgwire
        .change(|scenario| scenario.client_keys.push(ClientKey::new(OTHER_KEY)));
    let other = sharing(&redis, audited().imgwire("client_key", OTHER_KEY));
    let other = other.write(setup.imgwire.url(), other_folder.path());
    let first = start(&sharing(&redis, audited()), &setup).await;
    let second = GateProcess::start(&other, &[], "info").await;
    has_bypass(&first, "0").await;
    has_bypass(&second, "0").await;
    let leases = leases(&redis);
    assert_eq!(leases.len(), 2, "{leases:?}");
    for key in [CLIENT_KEY, OTHER_KEY, SERVER_API_KEY] {
        assert!(!leases.concat().contains(key), "{leases:?}");
    }
}

#[actix_web::test]
async fn a_gate_that_stops_releases_its_lease() {
    let Some(redis) = Redis::here() else { return };
    let setup = Setup::new();
    let config = sharing(&redis, audited());
    let mut gate = start(&config, &setup).await;
    has_bypass(&gate, "0").await;
    assert_eq!(leases(&redis).len(), 1);
    gate.signal("-INT");
    assert!(gate.end().await.success());
    eventually("the end of the lease", async || leases(&redis).is_empty()).await;
    // The gate that starts next audits soon.
    let gate = start(&config, &setup).await;
    has_bypass(&gate, "0").await;
}

#[actix_web::test]
async fn a_gate_that_stops_deletes_the_upload_that_was_accepted() {
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    slowly(&setup, Endpoint::Upload);
    slowly(&setup, Endpoint::Delete);
    let mut gate = start(&audited(), &setup).await;
    asked(&setup, Endpoint::Upload, 1).await;
    gate.signal("-INT");
    assert!(gate.end().await.success());
    assert_eq!(setup.imgwire.asked_at(Endpoint::Delete), 1);
    assert_eq!(setup.imgwire.images(ENVIRONMENT), [Value::Null; 0]);
    assert_eq!(lines(&gate, POSSIBLE).len(), 1);
}

#[actix_web::test]
async fn an_interrupted_doctor_deletes_the_upload_that_was_accepted() {
    let setup = Setup::new();
    set_unsigned(&setup.imgwire, true);
    slowly(&setup, Endpoint::Delete);
    let config = protected().write(setup.imgwire.url(), setup.folder.path());
    let mut command = program(&[]);
    command.args(["doctor", "--probe"]).arg(config);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut doctor = quiet.spawn().unwrap();
    asked(&setup, Endpoint::Delete, 1).await;
    assert_eq!(setup.imgwire.images(ENVIRONMENT).len(), 1);
    let id = doctor.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(sent.unwrap().success());
    let mut code = None;
    eventually("its end", async || {
        code = doctor.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!(code.unwrap().code(), Some(1));
    assert_eq!(setup.imgwire.images(ENVIRONMENT), [Value::Null; 0]);
}

#[actix_web::test]
async fn another_gate_audits_when_the_one_that_has_the_lease_stops() {
    let Some(redis) = Redis::here() else { return };
    let (setup, other_folder) = (Setup::new(), tempfile::tempdir().unwrap());
    let config = |every: &str| sharing(&redis, audited().imgwire("audit", every));
    let mut first = start(&config("1h"), &setup).await;
    has_bypass(&first, "0").await;
    let write = |every: &str| config(every).write(setup.imgwire.url(), other_folder.path());
    let second = GateProcess::start(&write("1h"), &[], "info").await;
    eventually("an attempt to get the lease", async || {
        metrics(&second)
            .await
            .contains("db_operation_name=\"lease\"")
    })
    .await;
    assert_eq!(bypass(&second).await, None);
    first.signal("-TERM");
    assert!(first.end().await.success());
    // A reload makes the second one try at once.
    write("2h");
    second.signal("-HUP");
    has_bypass(&second, "0").await;
}
