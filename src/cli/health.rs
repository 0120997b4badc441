//! `imgwire-gate health`

use std::time::Duration;

use actix_web::{http::Method, rt};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Config, Failure,
    management::{ManagementClient, locate, plain},
    print,
};

/// For everything. Shorter than the time limits of usual health checks.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest line about the parts that are down.
const MAX_PARTS: usize = 1000;

/// What of `/readyz` and `/livez` is used.
#[derive(Deserialize)]
struct Body {
    status: Option<String>,
    live: Option<bool>,
    #[serde(default)]
    failing: Vec<String>,
    #[serde(default)]
    degraded: Vec<String>,
}

/// Asks `/readyz` of the running gate, or `/livez`. The gate itself says where it listens, so what has happened to its
/// config file since does not matter.
pub(super) fn health(config: &Config, live: bool) -> Result<(), Failure> {
    let late = || Failure::other(format_args!("the gate did not respond within {TIMEOUT:?}"));
    rt::System::new().block_on(async {
        let asked = timeout(TIMEOUT, ask(config, live)).await;
        asked.unwrap_or_else(|_| Err(late()))
    })
}

async fn ask(config: &Config, live: bool) -> Result<(), Failure> {
    // These endpoints need no token.
    let client = ManagementClient::new(locate(config).await?, None);
    let path = if live { "/livez" } else { "/readyz" };
    let answer = client.ask(Method::GET, path).await?;
    let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
    match (answer.status.as_u16(), body) {
        (
            200,
            Some(Body {
                live: Some(true), ..
            }),
        ) if live => Ok(()),
        (200, Some(body)) if !live && body.status.as_deref() == Some("ready") => {
            match body.degraded.is_empty() {
                true => Ok(()),
                false => print(&format!("ready, degraded: {}", list(&body.degraded))),
            }
        }
        (503, Some(body)) if !live && !body.failing.is_empty() => {
            let failing = list(&body.failing);
            Err(Failure::other(format_args!(
                "not ready, failing: {failing}"
            )))
        }
        _ => Err(client.not_a_gate(answer.status)),
    }
}

/// The parts in one line.
fn list(parts: &[String]) -> String {
    plain(&parts.join(", ")).chars().take(MAX_PARTS).collect()
}
