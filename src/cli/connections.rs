//! `check --connect`: tries the stores, the issuers' keys and Imgwire.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use bytes::Bytes;
use policies::{BuildError, Clock, Requirements};
use tokio::time::timeout;

use crate::{
    identities::Identities,
    outbound::{HttpClient, OutboundRequest, Resend, tls_config},
    server::{build::Foundation, settings::Settings},
    stores::{OpenStore, Stores},
};

/// For the keys of all issuers together.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to check whether the keys have arrived.
const LOOK: Duration = Duration::from_millis(20);

/// The user and the workspace of a trial query, which match no member.
const NOBODY: &str = "imgwire-gate-check";

/// The result of trying one part: a note, or why it failed.
pub(super) struct Tried {
    /// The part, as the config names it.
    pub(super) part: String,
    pub(super) result: Result<String, String>,
}

/// Tries everything that `settings` name, and consumes nothing. Another process may have the SQLite file open.
pub(super) async fn try_all(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Tried>, BuildError> {
    let tls = tls_config(&settings.authorities);
    let rules = Foundation::new(settings, &tls, clock).look(settings, true)?;
    let mut tried = Vec::new();
    for store in rules.stores.iter().filter(|store| store.is_used()) {
        let result = try_store(settings, &rules.stores, store).await;
        tried.push(Tried {
            part: format!("stores.{}", store.name),
            result: result.map(|()| "ok".to_owned()),
        });
    }
    tried.extend(try_keys(&rules.identities).await);
    tried.push(Tried {
        part: "imgwire".to_owned(),
        result: try_imgwire(settings, &HttpClient::new(tls, clock.clone())).await,
    });
    Ok(tried)
}

/// Tries a store, and each membership query that uses it.
async fn try_store(settings: &Settings, stores: &Stores, store: &OpenStore) -> Result<(), String> {
    store.check().await?;
    for (name, policy) in &settings.policies {
        let Requirements {
            store: used, query, ..
        } = &policy.requirements;
        let is_here = used.as_ref().is_some_and(|(name, _)| *name == store.name);
        if let (true, Some(query)) = (is_here, query) {
            let database = stores.memberships(&store.name);
            let database = database.map_err(|error| error.to_string())?;
            let asked = database.members(query, NOBODY, NOBODY).await;
            asked.map_err(|error| format!("policies.{name}.query: {error}"))?;
        }
    }
    Ok(())
}

async fn try_keys(identities: &Identities) -> Vec<Tried> {
    let is_open = || {
        let mut states = identities.keys();
        states.any(|(_, state)| state.keys == 0 && state.failure.is_none())
    };
    let fetched = async {
        while is_open() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let fetching = async {
        tokio::select! {
            () = fetched => {}
            () = async { identities.refresh_keys().await; std::future::pending().await } => {}
        }
    };
    let is_late = timeout(KEYS_TIMEOUT, fetching).await.is_err();
    let late = is_late.then(|| "no answer in time".to_owned());
    identities
        .keys()
        .map(|(name, state)| Tried {
            part: format!("identities.{name}"),
            result: match (state.keys, state.failure.or(late.clone())) {
                (0, failure) => Err(failure.unwrap_or_else(|| "there are no keys".to_owned())),
                (1, _) => Ok("ok, one key".to_owned()),
                (keys, _) => Ok(format!("ok, {keys} keys")),
            },
        })
        .collect()
}

/// Asks Imgwire for its health. Any answer means that it can be reached, even if it has no such page.
async fn try_imgwire(settings: &Settings, http: &HttpClient) -> Result<String, String> {
    const HEALTH: &str = "/health";
    const LONGEST: usize = 64 * 1024;

    let outgoing = OutboundRequest {
        method: Method::GET,
        url: &format!("{}{HEALTH}", settings.imgwire.base_url.as_str()),
        headers: Vec::new(),
        body: Bytes::new(),
        timeout: settings.imgwire.timeout.get(),
        max_response_bytes: LONGEST,
        resend: Resend::Safe,
    };
    let answer = http
        .send(outgoing)
        .await
        .map_err(|error| error.to_string())?;
    match answer.status.as_u16() {
        200 => Ok("ok".to_owned()),
        status @ 500.. => Err(format!("{HEALTH} answers {status}")),
        status => Ok(format!("can be reached ({HEALTH} answers {status})")),
    }
}
