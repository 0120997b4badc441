//! How the gate and PostgreSQL prove to each other who they are.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    certificates::Authority,
    helpers::{Gate, TestApp, env},
    members::{MEMBERS, QUERY, ask_for, asking},
    postgres::Postgres,
    real_parts::are_here,
    scaling::{patient, quota, ready},
};

/// A server that requires TLS and a client certificate of its authority for the user `gate`, by TLS only.
struct Secured {
    server: Postgres,
    authority: Authority,
}

impl Secured {
    async fn start(rule: &str, names: &str) -> Option<Self> {
        if !are_here(&["openssl"]) {
            return None;
        }
        let server = Postgres::here()?.await;
        server.run(MEMBERS).await;
        server.run("create role gate login password 'a-password'; grant select on members to gate; grant create on database postgres to gate").await;
        let authority = Authority::new();
        let (certificate, key) = authority.issue("database", names);
        server
            .serve_tls(&certificate, &key, authority.certificate(), rule)
            .await;
        Some(Self { server, authority })
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        format!(
            "postgres://gate@{host}:{}/postgres?{parameters}",
            self.server.port()
        )
    }
}

async fn status(gate: &TestApp) -> u16 {
    ask_for(gate, "user_1", "ws_1").await.status.as_u16()
}

fn lookup(url: &str) -> Gate {
    asking(url, QUERY)
        .set("stores.app.timeout", "10s")
        .set("stores.app.password", env("PASSWORD"))
        .secret("PASSWORD", "a-password")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[actix_web::test]
async fn the_modes_of_tls_verify_what_they_say() {
    let rule = "hostssl all gate 127.0.0.1/32 scram-sha-256";
    let Some(secured) = Secured::start(rule, "DNS:database.example.com").await else {
        return;
    };
    let ca = shown(secured.authority.certificate());
    let other = Authority::new();
    let other_ca = shown(other.certificate());
    // The certificate is for another name than 127.0.0.1.
    for (parameters, expected) in [
        ("sslmode=disable".to_owned(), 500),
        (String::new(), 500),
        ("sslmode=allow".to_owned(), 200),
        ("sslmode=prefer".to_owned(), 200),
        ("sslmode=require".to_owned(), 500),
        (format!("sslmode=require&sslrootcert={ca}"), 500),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), 200),
        (format!("sslmode=verify-ca&sslrootcert={other_ca}"), 500),
        (format!("sslmode=verify-full&sslrootcert={ca}"), 500),
        ("sslmode=verify-full&sslrootcert=system".to_owned(), 500),
        ("sslmode=no-verify".to_owned(), 200),
        (
            "sslmode=require&sslaccept=accept_invalid_certs".to_owned(),
            200,
        ),
        (
            format!("sslmode=verify-ca&sslrootcert={ca}&channel_binding=require"),
            200,
        ),
    ] {
        let gate = lookup(&secured.url("127.0.0.1", &parameters)).start().await;
        assert_eq!(status(&gate).await, expected, "{parameters}");
    }
    let url = format!(
        "postgres://gate@database.example.com:{}/postgres?hostaddr=127.0.0.1&sslmode=verify-full",
        secured.server.port()
    );
    for (ca, expected) in [(&ca, 200), (&other_ca, 500)] {
        let gate = lookup(&url).set("stores.app.tls", json!({ "ca": ca }));
        assert_eq!(status(&gate.start().await).await, expected, "{ca}");
        let gate = lookup(&format!("{url}&sslrootcert={ca}"));
        assert_eq!(status(&gate.start().await).await, expected, "{ca}");
    }
}

#[actix_web::test]
async fn a_client_certificate_signs_the_gate_in() {
    let rule = "hostssl all gate 127.0.0.1/32 cert clientcert=verify-full";
    let Some(secured) = Secured::start(rule, "IP:127.0.0.1").await else {
        return;
    };
    let ca = shown(secured.authority.certificate());
    let identity = |(certificate, key): (PathBuf, PathBuf)| (shown(&certificate), shown(&key));
    let gate = identity(secured.authority.issue("gate", "DNS:gate"));
    let another = identity(secured.authority.issue("another", "DNS:another"));
    let stranger = Authority::new();
    let stranger = identity(stranger.issue("gate", "DNS:gate"));
    let url = secured.url("127.0.0.1", "sslmode=verify-full");
    for ((certificate, key), expected) in [(gate, 200), (another, 500), (stranger, 500)] {
        let tls = json!({ "ca": ca, "certificate": certificate, "key": { "file": key } });
        let by_keys = asking(&url, QUERY)
            .set("stores.app.timeout", "10s")
            .set("stores.app.tls", tls);
        assert_eq!(
            status(&by_keys.start().await).await,
            expected,
            "{certificate}"
        );
        let parameters =
            format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}");
        let in_url = asking(&secured.url("127.0.0.1", &parameters), QUERY);
        let in_url = in_url.set("stores.app.timeout", "10s");
        assert_eq!(
            status(&in_url.start().await).await,
            expected,
            "{certificate}"
        );
        if expected == 200 {
            // The key may also be in a variable.
            let pem = std::fs::read_to_string(&key).unwrap();
            let tls = json!({ "ca": ca, "certificate": certificate, "key": env("KEY") });
            let counting = patient(quota(&url, 1, "day"))
                .set("stores.shared.tls", tls)
                .secret("KEY", &pem)
                .start()
                .await;
            ready(&counting).await;
            assert_eq!(status(&counting).await, 200);
        }
    }
    let without = asking(&url, QUERY).set("stores.app.tls", json!({ "ca": ca }));
    let without = without.set("stores.app.timeout", "10s").start().await;
    assert_eq!(status(&without).await, 500);
}
