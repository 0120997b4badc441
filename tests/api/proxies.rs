//! Real proxies in front of the gate, with the configs of `docs/proxies.md`.

use std::{fs, net::IpAddr, path::Path};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{Gate, ROUTE, SESSION, TestApp, eventually, forwarded, rate_limit},
    real_parts::{RawAnswer, RawClient, Running, are_here, blocks, free_port},
    service::{Reply, Service},
};

/// Base64 of `ada:sesame`, which HAProxy requires. The other proxies ask their sign-in service.
const CREDENTIALS: &str = "Authorization: Basic YWRhOnNlc2FtZQ==\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Caddy,
    Haproxy,
}

impl Proxy {
    pub(crate) fn program(self) -> &'static str {
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
        Self::start_with(proxy, by_socket, 1000).await
    }

    async fn start_with(proxy: Proxy, by_socket: bool, limit: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gate.sock");
        let edge = forwarded("X-Auth-Request-User");
        let builder = Gate::accepting(["edge"])
            .server("trusted_proxies", ["127.0.0.1/32"])
            .server("allowed_origins", ["https://app.example.com"])
            .identity(
                "edge",
                edge.claims(json!({ "groups": "X-Auth-Request-Groups" })),
            )
            .policy("per-address", rate_limit().per(["ip"]).limit(limit))
            .chain(["per-address", "signed-in"])
            .exchange(["edge"]);
        let builder = if by_socket {
            builder.server("bind", format!("unix:{}", socket.display()))
        } else {
            builder
        };
        let gate = builder.start().await;
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

    /// The user that the gate finds in these headers; `None` where it refuses the request.
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
pub(crate) fn run(proxy: Proxy, folder: &Path, port: u16, block: &str) -> Running {
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

pub(crate) fn here(proxy: Proxy) -> bool {
    are_here(&[proxy.program()])
}

/// Headers by which a client may try to pass for another user.
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

async fn a_client_cannot_pass_for_another_user(proxy: Proxy) {
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

/// Runs every test behind every proxy.
macro_rules! suite {
    ($tests:tt: $($module:ident: $proxy:expr,)+) => {
        $(suite!(@ $module, $proxy, $tests);)+
    };
    (@ $module:ident, $proxy:expr, [$($test:ident,)+]) => {
        mod $module {
            use super::Proxy;

            $(
                #[actix_web::test]
                async fn $test() {
                    super::$test($proxy).await;
                }
            )+
        }
    };
}

suite! {
    [
        a_client_cannot_pass_for_another_user,
        a_client_has_one_address_whatever_its_headers,
        a_unix_socket_serves_the_proxy,
        connections_are_kept_and_large_headers_do_not_break_them,
    ]:
    behind_nginx: Proxy::Nginx,
    behind_caddy: Proxy::Caddy,
    behind_haproxy: Proxy::Haproxy,
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

async fn a_client_has_one_address_whatever_its_headers(proxy: Proxy) {
    a_client_has_one_address(proxy, false).await;
}

async fn a_unix_socket_serves_the_proxy(proxy: Proxy) {
    a_client_has_one_address(proxy, true).await;
}

async fn a_client_has_one_address(proxy: Proxy, by_socket: bool) {
    if !here(proxy) {
        return;
    }
    let deployment = Deployment::start_with(proxy, by_socket, ADDRESSES.len()).await;
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

async fn connections_are_kept_and_large_headers_do_not_break_them(proxy: Proxy) {
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
    // Caddy accepts a megabyte, the others refuse such headers; no proxy fails.
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

/// The proxies that ask oauth2-proxy, with the gate of its guide.
#[actix_web::test]
async fn users_of_oauth2_proxy_may_upload_and_others_can_sign_in() {
    for proxy in [Proxy::Nginx, Proxy::Caddy] {
        if !here(proxy) {
            return;
        }
        let gate = Gate::accepting(["oauth2-proxy"])
            .server("trusted_proxies", ["127.0.0.1/32"])
            .include(&blocks("docs/proxies.md", "toml")[1])
            .chain(["signed-in", "member"])
            .start()
            .await;
        let (sign_in, folder) = (Service::start(), tempfile::tempdir().unwrap());
        let port = free_port();
        let _proxy = start_proxy(proxy, folder.path(), port, &gate, &sign_in, false);
        eventually("the proxy's start", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        sign_in.answer("/oauth2/sign_in", Reply::text("choose a provider"));
        let found = Reply::status(302).header("location", "https://id.example.com/authorize");
        sign_in.answer("/oauth2/start", found);
        let send = async |method: &str, path: &str, headers: &str| {
            let client = RawClient::connect(IpAddr::from([127, 0, 0, 2]), port).await;
            let mut client = client;
            client.send(method, path, headers).await
        };
        let ask = async |headers: &str| {
            let headers = format!("Content-Length: 0\r\n{headers}");
            send("POST", ROUTE, &headers).await
        };
        let user = |groups: &str| {
            let user = Reply::status(202).header("x-auth-request-user", "ada");
            user.header("x-auth-request-groups", groups)
        };
        sign_in.answer("/oauth2/auth", Reply::status(401));
        assert_eq!(ask("").await.status, 401, "{proxy:?}");
        let spoof = "X-Auth-Request-User: ada\r\nX-Auth-Request-Groups: ws_1\r\n";
        assert_eq!(ask(spoof).await.status, 401, "{proxy:?}");
        let page = send("GET", "/oauth2/sign_in", "").await;
        assert_eq!(page.status, 200, "{proxy:?}: {page:?}");
        assert!(page.body.contains("choose a provider"), "{page:?}");
        let start = send("GET", "/oauth2/start?rd=%2Fpictures", "").await;
        assert_eq!(start.status, 302, "{proxy:?}: {start:?}");
        assert_eq!(start.header("location"), "https://id.example.com/authorize");
        let seen = sign_in.seen("/oauth2/start").pop().unwrap();
        let uri = &seen.headers["x-forwarded-uri"];
        assert_eq!(uri, "/oauth2/start?rd=%2Fpictures");

        // The session is in several cookies, which reach oauth2-proxy.
        sign_in.answer("/oauth2/auth", user("ws_1,staff"));
        let cookies = "Cookie: _oauth2_proxy_0=abc; _oauth2_proxy_1=def|1|x=\r\n";
        let workspace = "X-Workspace-Id: ws_1\r\n";
        let member = ask(&format!("{cookies}{workspace}")).await;
        assert_eq!(member.status, 200, "{proxy:?}: {member:?}");
        let seen = sign_in.seen("/oauth2/auth").pop().unwrap();
        let cookies = "_oauth2_proxy_0=abc; _oauth2_proxy_1=def|1|x=";
        assert_eq!(seen.headers["cookie"], cookies);
        let stranger = ask("X-Workspace-Id: ws_9\r\n").await;
        assert_eq!(stranger.status, 403, "{proxy:?}: {stranger:?}");
        sign_in.answer("/oauth2/auth", user("ws_1"));
        assert_eq!(ask("").await.status, 200, "{proxy:?}");
        sign_in.answer("/oauth2/auth", user(""));
        assert_eq!(ask("").await.status, 403, "{proxy:?}");
    }
}
