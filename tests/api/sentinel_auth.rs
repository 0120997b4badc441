//! Sentinels have users and passwords of their own.

use crate::{
    helpers::{Gate, SECRET, env, eventually},
    redis_server::Redis,
    scaling::{patient, quota},
    sentinels::Sentinels,
    watched::Watched,
};

/// The server has another password than the Sentinels.
const SERVER_PASSWORD: &str = "the password of the server";

fn gate(sentinels: &Sentinels) -> Gate {
    let url = format!("redis+sentinel://{}/counters", sentinels.addresses());
    let gate = patient(quota(&url, 1000, "day"));
    let password = sentinels.folder().join("password");
    std::fs::write(&password, SERVER_PASSWORD).unwrap();
    gate.set(
        "stores.shared.password",
        serde_json::json!({ "file": password }),
    )
}

fn server() -> Option<Redis> {
    let server = Redis::here()?;
    server.run(&["CONFIG", "SET", "requirepass", SERVER_PASSWORD]);
    Some(server)
}

const AUTH_PASS: &str = "sentinel auth-pass counters \"the password of the server\"\n";

async fn counts(gate: Gate) {
    let gate = Watched::start(&gate).await;
    gate.ready().await;
    assert_eq!(gate.ask().await, 200);
}

async fn is_down(gate: Gate, reason: &str) {
    let gate = Watched::start(&gate).await;
    eventually("the reason", async || {
        !gate.lines("the store is down").is_empty()
    })
    .await;
    let lines = gate.lines("the store is down");
    let said = lines[0]["reason"].as_str().unwrap();
    assert!(said.contains(reason), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(gate.ask().await, 500);
}

#[actix_web::test]
async fn sentinels_with_a_password_are_asked_with_it() {
    let Some(server) = server() else { return };
    let lines = format!("requirepass \"{SECRET}\"\n{AUTH_PASS}");
    let sentinels = Sentinels::with(&server, &lines);
    let with = |gate: Gate| gate.set("stores.shared.sentinel_password", env("TEST_SECRET"));
    counts(with(gate(&sentinels))).await;
    is_down(
        gate(&sentinels),
        "the Sentinel requires a password; set `sentinel_password`",
    )
    .await;
}

#[actix_web::test]
async fn sentinels_with_a_user_are_asked_as_that_user() {
    let Some(server) = server() else { return };
    let lines = format!(
        "user default off\nuser gate on \">{SECRET}\" resetkeys -@all +auth +sentinel|get-master-addr-by-name\n{AUTH_PASS}"
    );
    let sentinels = Sentinels::with(&server, &lines);
    let with = |gate: Gate, user: &str| {
        gate.set("stores.shared.sentinel_password", env("TEST_SECRET"))
            .set("stores.shared.sentinel_user", user)
    };
    counts(with(gate(&sentinels), "gate")).await;
    is_down(
        with(gate(&sentinels), "another"),
        "the server refuses the user or the password",
    )
    .await;
}
