//! `check --connect`: checks the connections to the stores, the issuers and Imgwire.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use bytes::Bytes;
use policies::{BuildError, Clock, Requirements};
use tokio::time::timeout;

use crate::{
    identities::Identities,
    outbound::{HttpClient, OutboundRequest, Resend, tls_config},
    server::{build::RulesBuilder, settings::Settings},
    stores::{OpenStore, Stores},
};

/// How long the keys of all issuers together may take.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to check whether the keys have arrived.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The user and the workspace in a test of a membership query. They match no member.
const UNKNOWN_ID: &str = "imgwire-gate-check";

pub(super) struct CheckResult {
    /// The part of the config, for example `stores.main`.
    pub(super) part: String,
    /// A note, or the reason of a failure.
    pub(super) result: Result<String, String>,
}

/// Checks all connections that `settings` name, and consumes nothing. A running gate may have the SQLite file open.
pub(super) async fn check_all(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<CheckResult>, BuildError> {
    let tls = tls_config(&settings.authorities);
    let rules = RulesBuilder::new(settings, &tls, clock).build_read_only(settings, true)?;
    let mut checks = Vec::new();
    for store in rules.stores.iter().filter(|store| store.is_used()) {
        let result = check_store(settings, &rules.stores, store).await;
        checks.push(CheckResult {
            part: format!("stores.{}", store.name),
            result: result.map(|()| "ok".to_owned()),
        });
    }
    checks.extend(check_keys(&rules.identities).await);
    checks.push(CheckResult {
        part: "imgwire".to_owned(),
        result: check_imgwire(
            settings,
            &HttpClient::new(tls, clock.clone(), Arc::default()),
        )
        .await,
    });
    Ok(checks)
}

/// Checks a store and the membership queries that use it.
async fn check_store(
    settings: &Settings,
    stores: &Stores,
    store: &OpenStore,
) -> Result<(), String> {
    store.check().await?;
    for (name, policy) in &settings.policies {
        let Requirements {
            store: used, query, ..
        } = &policy.requirements;
        let is_here = used.as_ref().is_some_and(|(name, _)| *name == store.name);
        if let (true, Some(query)) = (is_here, query) {
            let database = stores.memberships(&store.name);
            let database = database.map_err(|error| error.to_string())?;
            let found = database.members(query, UNKNOWN_ID, UNKNOWN_ID).await;
            found.map_err(|error| format!("policies.{name}.query: {error}"))?;
        }
    }
    Ok(())
}

async fn check_keys(identities: &Identities) -> Vec<CheckResult> {
    let is_pending = || {
        let mut states = identities.keys();
        states.any(|(_, state)| state.keys == 0 && state.failure.is_none())
    };
    let fetched = async {
        while is_pending() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let fetching = async {
        tokio::select! {
            () = fetched => {}
            () = async { identities.refresh_keys().await; std::future::pending().await } => {}
        }
    };
    let is_late = timeout(KEYS_TIMEOUT, fetching).await.is_err();
    let late = is_late.then(|| "timed out".to_owned());
    identities
        .keys()
        .map(|(name, state)| CheckResult {
            part: format!("identities.{name}"),
            result: match (state.keys, state.failure.or(late.clone())) {
                (0, failure) => Err(failure.unwrap_or_else(|| "no keys found".to_owned())),
                (1, _) => Ok("ok, one key".to_owned()),
                (keys, _) => Ok(format!("ok, {keys} keys")),
            },
        })
        .collect()
}

/// Requests Imgwire's health page. Any response below 500 means that Imgwire is reachable, even if it has no such page.
async fn check_imgwire(settings: &Settings, http: &HttpClient) -> Result<String, String> {
    const HEALTH: &str = "/health";
    const MAX_BYTES: usize = 64 * 1024;

    let outgoing = OutboundRequest {
        method: Method::GET,
        url: &format!("{}{HEALTH}", settings.imgwire.base_url.as_str()),
        headers: Vec::new(),
        body: Bytes::new(),
        timeout: settings.imgwire.timeout.get(),
        max_response_bytes: MAX_BYTES,
        resend: Resend::Safe,
    };
    let answer = http
        .send(outgoing)
        .await
        .map_err(|error| error.to_string())?;
    match answer.status.as_u16() {
        200 => Ok("ok".to_owned()),
        status @ 500.. => Err(format!("{HEALTH} returned {status}")),
        status => Ok(format!("reachable ({HEALTH} returned {status})")),
    }
}
