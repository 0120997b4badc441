//! The proxy configs without sign-in, private authorities, and clients that bypass the proxy.

use std::{fs, net::IpAddr};

use actix_web::http::Method;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::{
    helpers::{Emulator, Gate, ROUTE, Token, eventually, forwarded, published_jwt, signed_in},
    proxies::{Proxy, here, run},
    real_parts::{RawClient, Running, blocks, free_port},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

#[actix_web::test]
async fn a_client_that_bypasses_the_proxy_is_not_signed_in() {
    let app = Gate::accepting(["edge"])
        .server("trusted_proxies", ["192.0.2.1"])
        .identity("edge", forwarded("X-Auth-Request-User"))
        .start()
        .await;
    let request = app
        .request(Method::POST, ROUTE)
        .header("x-auth-request-user", "ada");
    let answer = request.json(&json!({})).await;
    answer.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn the_proxy_configs_without_sign_in_work() {
    for (page, proxy) in [
        ("docs/proxies.md", Proxy::Caddy),
        ("docs/proxies.md", Proxy::Nginx),
    ] {
        if !here(proxy) {
            return;
        }
        let builder = Gate::standard().server("trusted_proxies", ["127.0.0.1"]);
        let gate = builder.start().await;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let language = proxy.program();
        let block = blocks(page, language).pop().unwrap();
        let block = block
            .replace("127.0.0.1:8080", &gate.url.replace("http://", ""))
            .replace("server {\n", "server {\n    listen 80;\n")
            .replace("app.example.com {", ":80 {");
        let _proxy = run(proxy, folder.path(), port, &block);
        let headers = format!(
            "Content-Length: 0\r\nAuthorization: Bearer {}\r\n",
            Token::of("user_1").sign()
        );
        eventually("the proxy's start", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        let mut client = RawClient::connect(IpAddr::from([127, 0, 0, 2]), port).await;
        let answer = client.send("POST", ROUTE, &headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[actix_web::test]
async fn a_private_authority_is_trusted_if_the_config_names_it() {
    if !here(Proxy::Caddy) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let issuer = Service::start();
    let key = SigningKey::new("one", Algorithm::ES256);
    issuer.answer("/jwks", Reply::json(&set(&[&key])));
    let port = free_port();
    let at = folder.path().display();
    let path = folder.path().join("caddy.conf");
    let imgwire = Emulator::start().unwrap();
    let (keys, tokens) = (&issuer.url, imgwire.url());
    let config = format!(
        "{{\nadmin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {at}/caddy\n}}\n\
         https://localhost:{port} {{\ntls internal\nreverse_proxy /jwks {keys}\nreverse_proxy /api/* {tokens}\n}}\n"
    );
    fs::write(&path, config).unwrap();
    let arguments = [
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        path.to_str().unwrap(),
    ];
    let _caddy = Running::start("caddy", &arguments, &path);
    let authority = folder.path().join("caddy/pki/authorities/local/root.crt");
    eventually("the authority", async || {
        authority.exists()
            && tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
    })
    .await;
    let base_url = format!("https://localhost:{port}");
    let builder = || {
        Gate::accepting(["idp"])
            .imgwire("base_url", &base_url)
            .identity("idp", published_jwt(["ES256"], &format!("{base_url}/jwks")))
            .without("identities.idp.audience")
    };
    let token = key.sign(&Token::of("user_1").without("aud"));
    let friend = builder().set("outbound.ca", &authority).start().await;
    eventually("the first certificate", async || {
        friend.ask().bearer(&token).send().await.status == 200
    })
    .await;
    // Without the authority, neither the issuer nor Imgwire is trusted.
    let stranger = builder().start().await;
    let answer = stranger.ask().bearer(&token).send().await;
    answer.assert_error(500, "internal");
    let stranger = builder().policy("signed-in", signed_in(["app"]));
    let answer = stranger.start().await.ask_as(&Token::of("user_1")).await;
    answer.assert_error(500, "imgwire_failed");
}
