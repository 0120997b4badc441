//! Errors of calls to other services, in words that say what to do.

use std::{fs, process::Command, sync::Arc};

use actix_web::http::Method;
use jsonwebtoken::Algorithm;
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    helpers::{Gate, TestApp, Token, discovered_jwt, introspection, published_jwt, remote_session},
    keys::JWKS,
    real_parts::are_here,
    service::{Reply, Service},
    signing::{SigningKey, set},
};

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A certificate authority, and certificates of it.
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.run("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        authority
    }

    fn run(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split(' '))
            .current_dir(self.0.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    /// Issues a certificate with these extensions, and returns its name.
    fn issue(&self, extensions: &str, days: i32) -> &'static str {
        fs::write(self.0.path().join("extensions"), extensions).unwrap();
        self.run("req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr");
        self.run(&format!(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out server.pem"
        ));
        "server"
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A server that only shakes hands. Returns its port.
    async fn serve(&self, name: &str) -> u16 {
        self.serve_with(name, rustls::ALL_VERSIONS, false).await
    }

    /// The same with these versions of TLS, and perhaps only for clients with a certificate.
    async fn serve_with(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        needs_client_certificate: bool,
    ) -> u16 {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let config = if needs_client_certificate {
            let mut roots = RootCertStore::empty();
            let authority = CertificateDer::from_pem_file(self.path("ca.pem"));
            roots.add(authority.unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.unwrap())
        } else {
            config.with_no_client_auth()
        };
        let config = config
            .with_single_cert(vec![certificate.unwrap()], key.unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Err((_, mut stream)) = acceptor.accept(stream).into_fallible().await {
                    // Without this, a reset could overtake the alert.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        });
        port
    }
}

/// Why the gate cannot judge a token.
async fn reason(app: &TestApp, token: &str) -> String {
    let explain = app.request_management(Method::POST, "/explain");
    let answer = explain.json(&json!({ "token": token })).await;
    let reason = &answer.json["policies"][0]["reason"];
    reason
        .as_str()
        .unwrap_or_else(|| panic!("{answer:?}"))
        .to_owned()
}

async fn reason_at(port: u16, ca: Option<String>) -> String {
    let idp = published_jwt(["ES256"], &format!("https://localhost:{port}{JWKS}"));
    let mut gate = Gate::accepting(["idp"]).identity("idp", idp);
    if let Some(ca) = ca {
        gate = gate.set("outbound.ca", ca);
    }
    let token = SigningKey::new("one", Algorithm::ES256).sign(&Token::of("user_1"));
    reason(&gate.start().await, &token).await
}

#[actix_web::test]
async fn certificate_errors_say_what_is_wrong_and_what_to_do() {
    if !are_here(&["openssl"]) {
        return;
    }
    let authority = Authority::new();
    let ca = || Some(authority.path("ca.pem"));
    let own = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth";
    let port = authority.serve(authority.issue(own, 2)).await;
    let unknown = reason_at(port, None).await;
    assert!(
        unknown.contains("the certificate of `localhost` is from an authority that the gate does not trust; add the certificate of that authority to `[outbound] ca`"),
        "{unknown}"
    );
    for (name, extensions, days, expected) in [
        (
            "ca",
            own,
            2,
            "is one of a certificate authority; let that authority issue a server certificate",
        ),
        (
            "server",
            "subjectAltName=DNS:a.example,DNS:*.b.example",
            2,
            "`a.example`",
        ),
        (
            "server",
            "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth",
            2,
            "is not for servers",
        ),
        ("server", own, -1, "has expired; renew it"),
    ] {
        authority.issue(extensions, days);
        let port = authority.serve(name).await;
        let reason = reason_at(port, ca()).await;
        assert!(
            reason.contains("the certificate of `localhost` ") && reason.contains(expected),
            "{reason}"
        );
        assert!(
            !reason.contains("InvalidCertificate") && !reason.contains("CaUsed"),
            "{reason}"
        );
    }
}

#[actix_web::test]
async fn a_server_that_requires_a_client_certificate_is_named() {
    if !are_here(&["openssl"]) {
        return;
    }
    let authority = Authority::new();
    authority.issue(
        "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth",
        2,
    );
    // With TLS 1.3, the client learns of it only after the handshake.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let port = authority.serve_with("server", &[version], true).await;
        let reason = reason_at(port, Some(authority.path("ca.pem"))).await;
        let expected = "`localhost` requires a client certificate, which the gate does not have";
        assert!(reason.contains(expected), "{version:?}: {reason}");
    }
}

#[actix_web::test]
async fn https_to_a_port_without_tls_is_named() {
    let service = Service::start();
    let port = service.url.rsplit(':').next().unwrap().parse().unwrap();
    let reason = reason_at(port, None).await;
    assert!(
        reason.contains("`localhost` does not speak TLS on this port"),
        "{reason}"
    );
}

#[actix_web::test]
async fn the_target_of_a_redirect_is_named_without_its_query() {
    let service = Service::start();
    let long = format!("/{}", "x".repeat(1000));
    for (target, expected) in [
        (
            "https://login.example.com/sign-in?token=s3cret",
            "`https://login.example.com/sign-in`",
        ),
        (
            "https://user:s3cret@login.example.com/a#s3cret",
            "`https://login.example.com/a`",
        ),
        ("/elsewhere?s3cret", "`/elsewhere`"),
        (&long, "x`; the gate does not follow redirects"),
    ] {
        let reply = Reply::status(302).header("location", target);
        for path in [JWKS, DISCOVERY, "/introspect", "/session"] {
            service.answer(path, reply.clone());
        }
        let at = |path: &str| format!("{}{path}", service.url);
        let jwt = SigningKey::new("one", Algorithm::ES256);
        let token = jwt.sign(&Token::of("user_1").with("iss", json!(service.url)));
        for (identity, token) in [
            (published_jwt(["ES256"], &at(JWKS)), token.as_str()),
            (discovered_jwt(["ES256"], &service.url), &token),
            (introspection(&at("/introspect")), "opaque"),
            (
                remote_session(&at("/session"), ["header:authorization"], "/id"),
                "opaque",
            ),
        ] {
            let gate = Gate::accepting(["idp"]).identity("idp", identity);
            let reason = reason(&gate.start().await, token).await;
            let redirect = "unexpected status 302, a redirect to ";
            assert!(
                reason.contains(redirect) && reason.contains(expected),
                "{reason}"
            );
            assert!(!reason.contains("s3cret") && reason.len() < 400, "{reason}");
        }
    }
}

#[actix_web::test]
async fn a_discovery_document_of_another_issuer_is_refused_and_both_issuers_are_named() {
    let service = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    let url = service.url.clone();
    service.answer(JWKS, Reply::json(&set(&[&key])));
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": format!("{url}{JWKS}") });
    let gate = |issuer: &str, discovery: &str| {
        let idp = discovered_jwt(["ES256"], issuer).set("discovery", discovery);
        Gate::accepting(["idp"]).identity("idp", idp)
    };
    let internal = format!("{url}/internal{DISCOVERY}");
    for (configured, published, is_equal) in [
        ("https://id.example.com", "https://id.example.com", true),
        ("https://id.example.com", "https://id.example.com/", false),
        ("https://id.example.com", "https://evil.example", false),
        (
            "https://login.example.com/{tid}/v2.0",
            "https://login.example.com/{tenantid}/v2.0",
            true,
        ),
    ] {
        service.answer(
            &format!("/internal{DISCOVERY}"),
            Reply::json(&document(published)),
        );
        let gate = gate(configured, &internal)
            .set("identities.idp.allowed_claims", json!({ "tid": "t1" }));
        let app = gate.start().await;
        let issuer = configured.replace("{tid}", "t1");
        let token = Token::of("user_1")
            .with("iss", json!(issuer))
            .with("tid", json!("t1"));
        let token = key.sign(&token);
        if is_equal {
            app.ask().bearer(&token).send().await.assert_token();
            continue;
        }
        app.ask()
            .bearer(&token)
            .send()
            .await
            .assert_error(500, "internal");
        let reason = reason(&app, &token).await;
        let both = format!(
            "the discovery document has another issuer: it names `{published}`, and the config `{configured}`"
        );
        assert!(reason.contains(&both), "{reason}");
    }
    // A token of another issuer.
    service.answer(
        &format!("/internal{DISCOVERY}"),
        Reply::json(&document("https://id.example.com")),
    );
    let app = gate("https://id.example.com", &internal).start().await;
    let token = Token::of("user_1").with("iss", json!("https://evil.example"));
    let reason = reason(&app, &key.sign(&token)).await;
    let both = "the token's `iss` is `https://evil.example`, expected `https://id.example.com`";
    assert!(reason.contains(both), "{reason}");
}

#[actix_web::test]
async fn a_document_that_is_no_key_set_is_named() {
    let service = Service::start();
    let token = SigningKey::new("one", Algorithm::ES256).sign(&Token::of("user_1"));
    for (document, expected) in [
        (
            json!({ "issuer": "x", "jwks_uri": "y" }),
            "is a discovery document, not a JSON Web Key Set; write its URL as `discovery`",
        ),
        (
            json!({ "kid": "-----BEGIN CERTIFICATE-----\n" }),
            "has certificates by `kid`",
        ),
        (json!({ "kty": "EC" }), "is not a JSON Web Key Set"),
    ] {
        service.answer(JWKS, Reply::json(&document));
        let idp = published_jwt(["ES256"], &format!("{}{JWKS}", service.url));
        let app = Gate::accepting(["idp"]).identity("idp", idp).start().await;
        let reason = reason(&app, &token).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[actix_web::test]
async fn a_reload_trusts_the_authority_that_the_config_now_names() {
    if !are_here(&["openssl"]) {
        return;
    }
    let authority = Authority::new();
    let own = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth";
    let port = authority.serve(authority.issue(own, 2)).await;
    // The identity has another name each time, so that the gate fetches its keys at once.
    let gate = |name: &str| {
        let idp = published_jwt(["ES256"], &format!("https://localhost:{port}{JWKS}"));
        Gate::accepting([name]).identity(name, idp)
    };
    let token = SigningKey::new("one", Algorithm::ES256).sign(&Token::of("user_1"));
    let app = gate("first").start().await;
    let without = reason(&app, &token).await;
    assert!(
        without.contains("that the gate does not trust"),
        "{without}"
    );
    let trusting = gate("second").set("outbound.ca", authority.path("ca.pem"));
    app.reload(&trusting).unwrap();
    let with = reason(&app, &token).await;
    assert!(!with.contains("trust"), "{with}");
}
