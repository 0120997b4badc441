//! Real apps that sign users in, with Auth.js and with better-auth, behind a proxy that speaks https.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use actix_web::web;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    guides::section,
    helpers::{Gate, ROUTE, TestApp, eventually, keys},
    process::text,
    real_parts::{self, Running, are_here, free_port},
};

/// An app and a gate with the config of the app's guide, behind Caddy.
struct Site {
    browser: Browser,
    gate: TestApp,
    _app: Running,
    _proxy: Running,
}

impl Site {
    /// Starts the app with these arguments; `{origin}` is where users find it.
    async fn start(script: &str, arguments: &[&str], heading: &str, identity: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let origin = format!("https://localhost:{port}");
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| argument.replace("{origin}", &origin))
            .collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (app, url) = Running::provider(script, &arguments);
        let config = section(heading).config.replace("http://app:3000", &url);
        let gate = Gate::accepting([identity])
            .server("trusted_proxies", ["127.0.0.1"])
            .include(&config)
            .chain(["signed-in", "member"])
            .start()
            .await;
        let proxy = start_caddy(folder.path(), &origin, &url, &gate.url);
        let authority = folder.path().join("caddy/pki/authorities/local/root.crt");
        let browser = Browser {
            origin,
            authority,
            folder,
        };
        eventually("the proxy's certificate", async || {
            browser.authority.exists()
                && tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .is_ok()
                && browser.get("/api/auth/session").await.0 != 0
        })
        .await;
        Self {
            browser,
            gate,
            _app: app,
            _proxy: proxy,
        }
    }
}

fn start_caddy(folder: &Path, origin: &str, app: &str, gate: &str) -> Running {
    let path = folder.join("caddy.conf");
    let at = folder.display();
    let config = format!(
        "{{\nadmin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {at}/caddy\n}}\n\
         {origin} {{\ntls internal\nreverse_proxy /api/auth/* {app}\nreverse_proxy /api/imgwire/* {gate}\n}}\n"
    );
    fs::write(&path, config).unwrap();
    let arguments = [
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        path.to_str().unwrap(),
    ];
    Running::start("caddy", &arguments, &path)
}

/// curl with a jar of cookies, which handles them as a browser does.
struct Browser {
    origin: String,
    authority: PathBuf,
    folder: TempDir,
}

impl Browser {
    /// Returns the status, 0 if there is no answer, and the body.
    async fn send(&self, url: &str, arguments: &[&str]) -> (u16, String) {
        let jar = self.jar();
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--max-time",
                "20",
                "--write-out",
                "\n%{http_code}",
            ])
            .arg("--cacert")
            .arg(&self.authority)
            .arg("--cookie")
            .arg(&jar)
            .arg("--cookie-jar")
            .arg(&jar)
            .args(["--header", &format!("Origin: {}", self.origin)])
            .args(arguments)
            .arg(url);
        let output = web::block(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn jar(&self) -> PathBuf {
        self.folder.path().join("cookies")
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!("{}{path}", self.origin), &[]).await
    }

    async fn post(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let arguments = [&["--request", "POST"], arguments].concat();
        self.send(&format!("{}{path}", self.origin), &arguments)
            .await
    }

    /// Posts a form of Auth.js.
    async fn submit(&self, path: &str, field: &str) {
        let (_, csrf) = self.get("/api/auth/csrf").await;
        let csrf: Value = serde_json::from_str(&csrf).unwrap();
        let token = format!("csrfToken={}", csrf["csrfToken"].as_str().unwrap());
        let (status, body) = self.post(path, &["--data", &token, "--data", field]).await;
        assert_eq!(status, 302, "{body}");
    }

    /// Follows the link in the last mail of the app.
    async fn open_link(&self) {
        let (_, link) = self.get("/api/auth/test/mail").await;
        assert!(link.starts_with(&self.origin), "{link}");
        assert_eq!(self.send(&link, &[]).await.0, 302);
    }

    /// Asks the gate for a token; returns the status and the code.
    async fn ask(&self, workspace: Option<&str>) -> (u16, String) {
        let body = json!({ "workspace": workspace });
        let body = match workspace {
            None => "{}".to_owned(),
            Some(_) => body.to_string(),
        };
        let header = "Content-Type: application/json";
        let arguments = ["--header", header, "--data", &body];
        let (status, body) = self.post(ROUTE, &arguments).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The names of the cookies that begin with `prefix`.
    fn cookies(&self, prefix: &str) -> Vec<String> {
        let jar = fs::read_to_string(self.jar()).unwrap();
        let names = jar.lines().filter_map(|line| line.split('\t').nth(5));
        let names = names.filter(|name| name.starts_with(prefix));
        names.map(str::to_owned).collect()
    }

    fn forget_everything(&self) {
        fs::remove_file(self.jar()).unwrap();
    }
}

const AUTH_JS: [&str; 4] = ["node", "npm:@auth/express", "caddy", "curl"];

fn not_signed_in() -> (u16, String) {
    (401, "not_signed_in".to_owned())
}

#[actix_web::test]
async fn users_of_auth_js_with_jwt_sessions_may_upload_over_https() {
    if !are_here(&AUTH_JS) {
        return;
    }
    let site = Site::start("authjs.mjs", &["jwt"], "Auth.js", "site").await;
    let browser = &site.browser;
    let sign_in = async |name: &str| {
        let field = format!("name={name}");
        let path = "/api/auth/callback/credentials";
        browser.submit(path, &field).await;
    };
    assert_eq!(browser.ask(None).await, not_signed_in());
    sign_in("ada").await;
    let cookie = "__Secure-authjs.session-token";
    assert_eq!(browser.cookies(cookie), [cookie]);
    assert_eq!(browser.ask(None).await, (200, String::new()));
    let forbidden = (403, "workspace_forbidden".to_owned());
    assert_eq!(browser.ask(Some("ws_9")).await, forbidden);
    browser.submit("/api/auth/signout", "callbackUrl=/").await;
    assert_eq!(browser.ask(None).await, not_signed_in());

    browser.forget_everything();
    sign_in("bob").await;
    let required = (403, "workspace_required".to_owned());
    assert_eq!(browser.ask(None).await, required);

    // A session in several cookies.
    browser.forget_everything();
    sign_in("grace").await;
    let chunks = browser.cookies(cookie);
    assert!(chunks.len() > 1, "{chunks:?}");
    let member = browser.ask(Some("workspace_250")).await;
    assert_eq!(member, (200, String::new()));
}

#[actix_web::test]
async fn users_of_auth_js_with_database_sessions_may_upload_over_https() {
    if !are_here(&AUTH_JS) {
        return;
    }
    let site = Site::start("authjs.mjs", &["database"], "Auth.js", "site").await;
    let browser = &site.browser;
    let sign_in = async |name: &str| {
        let field = format!("email={name}@example.com");
        browser.submit("/api/auth/signin/mail", &field).await;
        browser.open_link().await;
    };
    assert_eq!(browser.ask(None).await, not_signed_in());
    sign_in("ada").await;
    assert_eq!(browser.ask(None).await, (200, String::new()));
    // Pages see the user, and neither the session's token nor the rest of the user's row.
    let (_, session) = browser.get("/api/auth/session").await;
    let session: Value = serde_json::from_str(&session).unwrap();
    assert_eq!(keys(&session), ["expires", "user"]);
    assert_eq!(session["user"]["id"], "user_ada");
    assert!(!keys(&session["user"]).contains(&"passwordHash".to_owned()));
    let forbidden = (403, "workspace_forbidden".to_owned());
    assert_eq!(browser.ask(Some("ws_9")).await, forbidden);
    browser.submit("/api/auth/signout", "callbackUrl=/").await;
    assert_eq!(browser.ask(None).await, not_signed_in());

    browser.forget_everything();
    sign_in("bob").await;
    let required = (403, "workspace_required".to_owned());
    assert_eq!(browser.ask(None).await, required);
}

#[actix_web::test]
async fn users_of_better_auth_may_upload_over_https() {
    if !are_here(&["node", "npm:better-auth", "npm:express", "caddy", "curl"]) {
        return;
    }
    let arguments = ["{origin}"];
    let site = Site::start("better-auth.mjs", &arguments, "better-auth", "better-auth").await;
    let browser = &site.browser;
    let sign_up = async |name: &str, more: Value| {
        let mut user = json!({
            "name": name,
            "email": format!("{name}@example.com"),
            "password": "only for the tests",
        });
        for (key, value) in more.as_object().unwrap() {
            user[key] = value.clone();
        }
        let header = "Content-Type: application/json";
        let body = user.to_string();
        let arguments = ["--header", header, "--data", &body];
        browser.post("/api/auth/sign-up/email", &arguments).await
    };
    assert_eq!(browser.ask(None).await, not_signed_in());
    let (status, body) = sign_up("ada", json!({})).await;
    assert_eq!(status, 200, "{body}");
    let cookie = "__Secure-better-auth.session_token";
    assert_eq!(browser.cookies(cookie), [cookie]);
    assert_eq!(browser.ask(None).await, (200, String::new()));
    let forbidden = (403, "workspace_forbidden".to_owned());
    assert_eq!(browser.ask(Some("ws_9")).await, forbidden);
    let (status, body) = browser
        .post(
            "/api/auth/sign-out",
            &["--header", "Content-Type: application/json", "--data", "{}"],
        )
        .await;
    assert_eq!(status, 200, "{body}");
    // curl keeps the cookie, but better-auth no longer knows its session.
    site.gate.clock.advance(Duration::from_secs(11));
    assert_eq!(browser.ask(None).await, not_signed_in());

    // Users cannot give themselves workspaces.
    browser.forget_everything();
    sign_up("eve", json!({ "workspaces": ["ws_1"] })).await;
    let found = browser.ask(None).await;
    assert!(found.0 == 401 || found.0 == 403, "{found:?}");
}

#[actix_web::test]
async fn a_user_of_auth_js_may_upload_in_a_real_browser() {
    let browser = ["chromium", "npm:playwright-core"];
    if !are_here(&AUTH_JS) || !are_here(&browser) {
        return;
    }
    let site = Site::start("authjs.mjs", &["jwt"], "Auth.js", "site").await;
    let mut command = Command::new("node");
    command
        .current_dir(real_parts::browser())
        .args(["auth-apps.mjs", &site.browser.origin]);
    let output = web::block(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "before: 401 not_signed_in\n\
         signed in: 200\n\
         cookies: __Secure-authjs.session-token secure\n\
         after: 401 not_signed_in\n"
    );
}
