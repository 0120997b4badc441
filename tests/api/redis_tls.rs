//! TLS to Redis and to Sentinels with certificates of their own, and the URLs of providers.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    certificates::Authority,
    helpers::{Gate, env, eventually},
    real_parts::{are_here, free_port},
    redis_server::Redis,
    scaling::{patient, quota},
    sentinels::Sentinels,
    shared_servers::{everything, works},
    watched::Watched,
};

/// A Redis that is also reached by TLS.
struct Secured {
    server: Redis,
    port: u16,
    authority: Authority,
    certificate: PathBuf,
    key: PathBuf,
}

impl Secured {
    /// `auth_clients`: whether it requires certificates of clients.
    fn start(auth_clients: &str) -> Option<Self> {
        if !are_here(&["redis-server", "openssl"]) {
            return None;
        }
        let authority = Authority::new();
        let (certificate, key) = authority.issue("cache", "IP:127.0.0.1");
        let port = free_port();
        let tls = tls_options(port, &authority, &certificate, &key, auth_clients);
        let options: Vec<_> = tls
            .iter()
            .flat_map(|(name, value)| [format!("--{name}"), value.clone()])
            .collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        Some(Self {
            server: Redis::start(free_port(), &options),
            port,
            authority,
            certificate,
            key,
        })
    }

    fn ca(&self) -> String {
        self.authority.certificate().display().to_string()
    }

    fn client_certificate(&self) -> Value {
        let (certificate, key) = self.authority.issue("gate", "DNS:gate");
        json!({ "ca": self.ca(), "certificate": certificate, "key": { "file": key } })
    }
}

fn tls_options(
    port: u16,
    authority: &Authority,
    certificate: &std::path::Path,
    key: &std::path::Path,
    auth_clients: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("tls-port", port.to_string()),
        ("tls-cert-file", certificate.display().to_string()),
        ("tls-key-file", key.display().to_string()),
        (
            "tls-ca-cert-file",
            authority.certificate().display().to_string(),
        ),
        ("tls-auth-clients", auth_clients.to_owned()),
    ]
}

fn with_tls(gate: Gate, tls: impl serde::Serialize) -> Gate {
    gate.set("stores.shared.tls", tls)
}

async fn is_down(gate: &Gate, reason: &str) {
    let gate = Watched::start(gate).await;
    assert_eq!(gate.ask().await, 500);
    eventually("the reason", async || {
        !gate.lines("the store is down").is_empty()
    })
    .await;
    let lines = gate.lines("the store is down");
    let said = lines[0]["reason"].as_str().unwrap();
    assert!(said.to_lowercase().contains(reason), "{said}");
}

#[actix_web::test]
async fn a_redis_that_requires_a_client_certificate_accepts_the_stores_own() {
    let Some(secured) = Secured::start("yes") else {
        return;
    };
    let url = format!("rediss://127.0.0.1:{}", secured.port);
    let gate = with_tls(everything(&url), secured.client_certificate());
    works(&gate.start().await).await;
    let without = with_tls(quota(&url, 1000, "day"), json!({ "ca": secured.ca() }));
    is_down(&without, "certificate").await;
    let other = Authority::new();
    let stranger = with_tls(
        quota(&url, 1000, "day"),
        json!({ "ca": other.certificate() }),
    );
    is_down(&stranger, "certificate").await;
}

#[actix_web::test]
async fn sentinels_and_their_primary_are_reached_by_tls_with_a_client_certificate() {
    let Some(secured) = Secured::start("yes") else {
        return;
    };
    let port = free_port();
    let lines: String = tls_options(
        port,
        &secured.authority,
        &secured.certificate,
        &secured.key,
        "yes",
    )
    .into_iter()
    .map(|(name, value)| format!("{name} {value}\n"))
    .collect();
    let sentinels = Sentinels::one_with(secured.port, &format!("{lines}tls-replication yes\n"));
    let url = format!("rediss+sentinel://127.0.0.1:{port}/counters");
    let gate = with_tls(everything(&url), secured.client_certificate());
    works(&gate.start().await).await;
    // Without TLS the gate reaches the Sentinel, but not its primary.
    let url = format!("redis+sentinel://{}/counters", sentinels.addresses());
    is_down(&quota(&url, 1000, "day"), "").await;
}

#[actix_web::test]
async fn the_url_of_a_provider_holds_the_user_and_the_password() {
    let Some(secured) = Secured::start("no") else {
        return;
    };
    secured
        .server
        .run(&["CONFIG", "SET", "requirepass", "p@ss/word"]);
    for scheme in ["rediss", "valkeys"] {
        let url = format!(
            "{scheme}://default:p%40ss%2Fword@127.0.0.1:{}",
            secured.port
        );
        let gate = patient(quota("redis://replaced", 1000, "day"))
            .set("stores.shared.url", env("REDIS_URL"))
            .secret("REDIS_URL", &url);
        let gate = with_tls(gate, json!({ "ca": secured.ca() }));
        let gate = gate.start().await;
        crate::scaling::ready(&gate).await;
        let answer = gate.ask_as(&crate::helpers::Token::of("user_1")).await;
        assert_eq!(answer.status, 200, "{scheme}");
    }
}
