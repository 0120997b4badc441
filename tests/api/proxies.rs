//! Real proxies in front of the gate, with the configs of `docs/proxies.md`.

use std::{fs, net::IpAddr, path::Path};

use actix_web::http::Method;
use imgwire_gate::sandbox::emulator::Emulator;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{ROUTE, Recipe, SESSION, TestApp, Token, eventually},
    real_parts::{RawAnswer, RawClient, Running, are_here, blocks, free_port},
    service::{Reply, Service},
    signing::{SigningKey, set},
};

/// Base64 of `ada:sesame`, which HAProxy asks for. The others let their sign-in service decide.
const CREDENTIALS: &str = "Authorization: Basic YWRhOnNlc2FtZQ==\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Nginx,
    Caddy,
    Haproxy,
}

impl Proxy {
    fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A proxy that runs, with the gate and the sign-in service behind it.
struct Deployment {
    _gate: TestApp,
    port: u16,
    _sign_in: Service,
    _proxy: Running,
    _folder: TempDir,
}

impl Deployment {
    async fn start(proxy: Proxy, by_socket: bool) -> Self {
        Self::start_with(proxy, by_socket, "limit = 1000").await
    }

    async fn start_with(proxy: Proxy, by_socket: bool, limit: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gate.sock");
        let recipe = Recipe {
            server: r#"
                trusted_proxies = ["127.0.0.1/32"]
                allowed_origins = ["https://app.example.com"]
            "#
            .into(),
            more: r#"
                [identities.edge]
                kind = "forwarded"
                subject = "X-Auth-Request-User"
                claims = { groups = "X-Auth-Request-Groups" }
            "#
            .into(),
            policies: format!(
                r#"
                [policies.per-address]
                kind = "rate_limit"
                per = ["ip"]
                period = "1h"
                {limit}
                [policies.signed-in]
                kind = "signed_in"
                accept = ["edge"]
                "#
            ),
            chain: r#"["per-address", "signed-in"]"#.into(),
            exchange: r#"["edge"]"#.into(),
            bind: by_socket.then(|| format!("unix:{}", socket.display())),
            ..Recipe::default()
        };
        let gate = recipe.start().await;
        let sign_in = Service::start();
        let user = Reply::status(202).header("x-auth-request-user", "ada");
        sign_in.answer("/oauth2/auth", user);
        let port = free_port();
        let process = start_proxy(proxy, folder.path(), port, &gate, &sign_in, by_socket);
        let deployment = Self {
            _gate: gate,
            port,
            _sign_in: sign_in,
            _proxy: process,
            _folder: folder,
        };
        eventually("the proxy's start", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        deployment
    }

    async fn client(&self, number: u8) -> RawClient {
        RawClient::connect(IpAddr::from([127, 0, 0, number]), self.port).await
    }

    /// Asks for a token from an address, with these headers.
    async fn ask(&self, from: u8, headers: &str) -> RawAnswer {
        let headers = format!("Content-Length: 0\r\n{CREDENTIALS}{headers}");
        self.client(from).await.send("POST", ROUTE, &headers).await
    }

    /// Whom the gate takes a client with these headers for; nobody where it is refused.
    async fn subject(&self, headers: &str) -> Option<String> {
        let headers = format!("Content-Length: 0\r\n{CREDENTIALS}{headers}");
        let answer = self.client(2).await.send("POST", SESSION, &headers).await;
        if answer.status != 204 {
            assert!((400..500).contains(&answer.status), "{answer:?}");
            return None;
        }
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        let shown = format!("{CREDENTIALS}Cookie: {cookie}\r\n");
        let shown = self.client(2).await.send("GET", SESSION, &shown).await;
        let start = shown.body.find('{').unwrap();
        let end = shown.body.rfind('}').unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown.body[start..=end]).unwrap();
        Some(shown["subject"].as_str().unwrap().to_owned())
    }
}

fn start_proxy(
    proxy: Proxy,
    folder: &Path,
    port: u16,
    gate: &TestApp,
    sign_in: &Service,
    by_socket: bool,
) -> Running {
    let host = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    let socket = folder.join("gate.sock").display().to_string();
    let (prefix, language) = match proxy {
        Proxy::Nginx => ("unix:", "nginx"),
        Proxy::Caddy => ("unix/", "caddy"),
        Proxy::Haproxy => ("unix@", "haproxy"),
    };
    let gate = if by_socket {
        format!("{prefix}{socket}")
    } else {
        host(&gate.url)
    };
    let block = blocks("docs/proxies.md", language).remove(0);
    assert!(block.contains("127.0.0.1:8080"));
    let block = block
        .replace("127.0.0.1:8080", &gate)
        .replace("127.0.0.1:4180", &host(&sign_in.url));
    run(proxy, folder, port, &block)
}

/// Runs a proxy with the config `block`, on `port` instead of 80.
fn run(proxy: Proxy, folder: &Path, port: u16, block: &str) -> Running {
    let path = folder.join(format!("{}.conf", proxy.program()));
    let config = path.to_str().unwrap();
    let at = folder.display();
    match proxy {
        Proxy::Nginx => {
            let block = block.replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
            let text = format!(
                "daemon off;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n\
                 access_log off;\nclient_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\n\
                 fastcgi_temp_path {at}/fastcgi;\nuwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n\
                 {block}}}\n"
            );
            fs::write(&path, format!("user root;\n{text}")).unwrap();
            Running::start("nginx", &["-c", config], &path)
        }
        Proxy::Caddy => {
            let block = block.replace(
                ":80 {",
                &format!("http://127.0.0.1:{port}, http://app.example.com:{port} {{"),
            );
            let text = format!(
                "{{\nadmin off\nauto_https off\nstorage file_system {at}/caddy\n}}\n{block}"
            );
            fs::write(&path, text).unwrap();
            Running::start(
                "caddy",
                &["run", "--adapter", "caddyfile", "--config", config],
                &path,
            )
        }
        Proxy::Haproxy => {
            fs::write(
                &path,
                block.replace("bind :80", &format!("bind 127.0.0.1:{port}")),
            )
            .unwrap();
            Running::start("haproxy", &["-db", "-f", config], &path)
        }
    }
}

fn here(proxy: Proxy) -> bool {
    are_here(&[proxy.program()])
}

/// What a client may try, to be taken for somebody else.
const SPOOFS: &[&str] = &[
    "X-Auth-Request-User: admin\r\n",
    "x-auth-request-user: admin\r\nX-Auth-Request-User: root\r\n",
    "X_Auth_Request_User: admin\r\n",
    "X-Auth_Request-User: admin\r\n",
    "X-Auth-Request-User : admin\r\n",
    "Connection: X-Auth-Request-User\r\nX-Auth-Request-User: admin\r\n",
    "Connection: close, X-Auth-Request-User, X-Forwarded-For\r\n",
    "X-Auth-Request-Groups: admins\r\n",
    "X_Auth_Request_Groups: admins\r\n",
    "Forwarded: for=127.0.0.1\r\nX-Auth-Request-User: admin\r\n",
    "X-Forwarded-For: 127.0.0.1\r\nX-Auth-Request-User: admin\r\n",
];

async fn nobody_becomes_somebody_else(proxy: Proxy) {
    if !here(proxy) {
        return;
    }
    let deployment = Deployment::start(proxy, false).await;
    assert_eq!(deployment.subject("").await.as_deref(), Some("ada"));
    let answer = deployment.ask(2, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("uploadToken"));
    for spoof in SPOOFS {
        let subject = deployment.subject(spoof).await;
        assert!(
            subject.is_none() || subject.as_deref() == Some("ada"),
            "{spoof}: {subject:?}"
        );
        assert_eq!(
            deployment.subject("").await.as_deref(),
            Some("ada"),
            "after {spoof}"
        );
    }
}

#[actix_web::test]
async fn nobody_becomes_somebody_else_through_nginx() {
    nobody_becomes_somebody_else(Proxy::Nginx).await;
}

#[actix_web::test]
async fn nobody_becomes_somebody_else_through_caddy() {
    nobody_becomes_somebody_else(Proxy::Caddy).await;
}

#[actix_web::test]
async fn nobody_becomes_somebody_else_through_haproxy() {
    nobody_becomes_somebody_else(Proxy::Haproxy).await;
}

/// Ways to write another address into the request.
const ADDRESSES: &[&str] = &[
    "",
    "X-Forwarded-For: 192.0.2.1\r\n",
    "X-Forwarded-For: 192.0.2.2, 192.0.2.3\r\n",
    "X-Forwarded-For: 192.0.2.4\r\nX-Forwarded-For: 192.0.2.5\r\n",
    "X_Forwarded_For: 192.0.2.6\r\n",
    "X-Forwarded-For: \" nonsense\r\n",
    "Forwarded: for=192.0.2.7\r\n",
    "X-Real-IP: 192.0.2.8\r\n",
];

async fn a_client_has_one_address(proxy: Proxy, by_socket: bool) {
    if !here(proxy) {
        return;
    }
    let limit = format!("limit = {}", ADDRESSES.len());
    let deployment = Deployment::start_with(proxy, by_socket, &limit).await;
    for from in [2, 3] {
        for headers in ADDRESSES {
            let answer = deployment.ask(from, headers).await;
            assert_eq!(answer.status, 200, "{from} {headers} {answer:?}");
        }
        for headers in ADDRESSES {
            let answer = deployment.ask(from, headers).await;
            assert_eq!(answer.status, 429, "{from} {headers} {answer:?}");
        }
    }
}

#[actix_web::test]
async fn a_client_has_one_address_behind_nginx_whatever_it_says() {
    a_client_has_one_address(Proxy::Nginx, false).await;
}

#[actix_web::test]
async fn a_client_has_one_address_behind_caddy_whatever_it_says() {
    a_client_has_one_address(Proxy::Caddy, false).await;
}

#[actix_web::test]
async fn a_client_has_one_address_behind_haproxy_whatever_it_says() {
    a_client_has_one_address(Proxy::Haproxy, false).await;
}

#[actix_web::test]
async fn a_unix_socket_serves_nginx() {
    a_client_has_one_address(Proxy::Nginx, true).await;
}

#[actix_web::test]
async fn a_unix_socket_serves_caddy() {
    a_client_has_one_address(Proxy::Caddy, true).await;
}

#[actix_web::test]
async fn a_unix_socket_serves_haproxy() {
    a_client_has_one_address(Proxy::Haproxy, true).await;
}

async fn connections_last_and_large_headers_harm_nobody(proxy: Proxy) {
    if !here(proxy) {
        return;
    }
    let deployment = Deployment::start(proxy, false).await;
    let mut client = deployment.client(2).await;
    let headers = format!("Content-Length: 0\r\n{CREDENTIALS}");
    for _ in 0..50 {
        let answer = client.send("POST", ROUTE, &headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let large = format!("{headers}X-Padding: {}\r\n", "x".repeat(6000));
    assert_eq!(client.send("POST", ROUTE, &large).await.status, 200);
    let too_large = format!("{headers}X-Padding: {}\r\n", "x".repeat(100_000));
    // Caddy takes a megabyte, the others refuse; nobody fails.
    let answer = deployment
        .client(2)
        .await
        .send("POST", ROUTE, &too_large)
        .await;
    assert!(
        answer.status == 200 || (400..500).contains(&answer.status),
        "{answer:?}"
    );
    assert_eq!(client.send("POST", ROUTE, &headers).await.status, 200);
}

#[actix_web::test]
async fn connections_last_and_large_headers_harm_nobody_behind_nginx() {
    connections_last_and_large_headers_harm_nobody(Proxy::Nginx).await;
}

#[actix_web::test]
async fn connections_last_and_large_headers_harm_nobody_behind_caddy() {
    connections_last_and_large_headers_harm_nobody(Proxy::Caddy).await;
}

#[actix_web::test]
async fn connections_last_and_large_headers_harm_nobody_behind_haproxy() {
    connections_last_and_large_headers_harm_nobody(Proxy::Haproxy).await;
}

#[actix_web::test]
async fn a_client_that_goes_around_the_proxy_is_nobody() {
    let recipe = Recipe {
        server: r#"trusted_proxies = ["192.0.2.1"]"#.into(),
        more: "[identities.edge]\nkind = \"forwarded\"\nsubject = \"X-Auth-Request-User\"".into(),
        ..Recipe::accepting(r#"["edge"]"#, "")
    };
    let app = recipe.start().await;
    let request = app
        .request(Method::POST, ROUTE)
        .header("x-auth-request-user", "ada");
    let answer = request.json(&json!({})).await;
    answer.assert_error(401, "not_signed_in");
}

#[actix_web::test]
async fn the_configs_of_the_readme_work() {
    for proxy in [Proxy::Nginx, Proxy::Caddy] {
        if !here(proxy) {
            return;
        }
        let recipe = Recipe {
            server: r#"trusted_proxies = ["127.0.0.1"]"#.into(),
            ..Recipe::default()
        };
        let gate = recipe.start().await;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let language = proxy.program();
        let block = blocks("README.md", language).remove(0);
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
async fn a_private_authority_is_trusted_when_the_config_names_it() {
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
    let trusting = |outbound: &str| {
        let identities = format!(
            r#"
            {outbound}
            [identities.idp]
            kind = "jwt"
            algorithms = ["ES256"]
            jwks_url = "https://localhost:{port}/jwks"
            "#
        );
        Recipe {
            base_url: Some(format!("https://localhost:{port}")),
            ..Recipe::accepting(r#"["idp"]"#, &identities)
        }
    };
    let token = key.sign(&Token::of("user_1").without("aud"));
    let outbound = format!("[outbound]\nca = {:?}", authority.display().to_string());
    let friend = trusting(&outbound).start().await;
    eventually("the first certificate", async || {
        friend.ask().bearer(&token).send().await.status == 200
    })
    .await;
    // Neither the issuer nor Imgwire is trusted without it.
    let stranger = trusting("").start().await;
    let answer = stranger.ask().bearer(&token).send().await;
    answer.assert_error(500, "internal");
    let fixed = trusting("").policies.replace("idp", "app");
    let stranger = Recipe {
        policies: fixed,
        ..trusting("")
    };
    let answer = stranger.start().await.ask_as(&Token::of("user_1")).await;
    answer.assert_error(500, "imgwire_failed");
}
