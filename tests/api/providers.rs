//! Real identity providers: the OpenID provider of npm's `oidc-provider`, and an app with Auth.js.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    helpers::{
        Answer, Gate, TestApp, Token, discovered_jwt, env, eventually, introspection,
        workspace_member,
    },
    real_parts::{Running, are_here, free_port},
};

/// The provider, which keeps its keys in a folder.
struct OidcProvider {
    folder: TempDir,
    port: u16,
    issuer: String,
    process: Option<Running>,
    client: awc::Client,
}

impl OidcProvider {
    fn start() -> Self {
        let mut provider = Self {
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            issuer: String::new(),
            process: None,
            client: awc::Client::builder()
                .timeout(Duration::from_secs(10))
                .finish(),
        };
        provider.come_back();
        provider
    }

    fn come_back(&mut self) {
        let folder = self.folder.path().to_str().unwrap();
        let (process, issuer) = Running::provider("oidc.mjs", &[folder, &self.port.to_string()]);
        self.issuer = issuer;
        self.process = Some(process);
    }

    fn go_down(&mut self) {
        self.process = None;
    }

    async fn get(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.issuer));
        let body = request.send().await.unwrap().body().await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn jwt(&self, user: &str, algorithm: &str) -> String {
        self.get(&format!("/test/token?user={user}&alg={algorithm}"))
            .await
    }

    async fn opaque(&self, user: &str) -> String {
        self.get(&format!("/test/token?user={user}")).await
    }

    async fn rotate(&self) {
        self.get("/test/rotate").await;
    }

    fn builder(&self) -> Gate {
        let issuer = &self.issuer;
        let url = format!("{issuer}/token/introspection");
        let by_post = introspection(&url)
            .auth_method("client_secret_post")
            .from(["header:x-opaque-post"]);
        Gate::accepting(["idp", "opaque", "opaque-post"])
            .identity("idp", discovered_jwt(["RS256", "ES256"], issuer))
            .identity(
                "opaque",
                introspection(&url).from(["header:x-opaque"]).cache("30s"),
            )
            .identity("opaque-post", by_post)
            .set("identities.opaque-post.client_id", "gate-post")
            .set("identities.opaque.client_secret", env("TEST_CLIENT_SECRET"))
            .set(
                "identities.opaque-post.client_secret",
                env("TEST_CLIENT_SECRET"),
            )
            .secret("TEST_CLIENT_SECRET", "gate-secret")
    }
}

async fn ask(app: &TestApp, token: &str) -> Answer {
    app.ask().bearer(token).send().await
}

#[actix_web::test]
async fn tokens_of_an_openid_provider_are_accepted_by_discovery() {
    if !are_here(&["node", "npm:oidc-provider"]) {
        return;
    }
    let provider = OidcProvider::start();
    let app = provider.builder().start().await;
    for algorithm in ["ES256", "RS256"] {
        let token = provider.jwt("user_1", algorithm).await;
        ask(&app, &token).await.assert_token();
        let mut changed = token.clone();
        let at = changed.len() - 10;
        let other = if &changed[at..=at] == "A" { "B" } else { "A" };
        changed.replace_range(at..=at, other);
        ask(&app, &changed)
            .await
            .assert_error(401, "invalid_credentials");
    }
    ask(&app, &Token::of("user_1").sign())
        .await
        .assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn no_request_fails_while_keys_rotate_under_load() {
    if !are_here(&["node", "npm:oidc-provider"]) {
        return;
    }
    let provider = OidcProvider::start();
    let app = provider.builder().start().await;
    for rotation in 0..3 {
        let users: Vec<_> = (0..8)
            .map(|user| format!("user_{rotation}_{user}"))
            .collect();
        let mut tokens = Vec::new();
        for user in &users {
            tokens.push(provider.jwt(user, "ES256").await);
        }
        let loading = async {
            for _ in 0..25 {
                let answers = join_all(tokens.iter().map(|token| ask(&app, token))).await;
                answers.iter().for_each(Answer::assert_token);
            }
        };
        let rotating = async {
            provider.rotate().await;
            // Tokens of the new key are accepted at once.
            let mut fresh = Vec::new();
            for user in &users {
                fresh.push(provider.jwt(user, "ES256").await);
            }
            let answers = join_all(fresh.iter().map(|token| ask(&app, token))).await;
            answers.iter().for_each(Answer::assert_token);
        };
        futures_util::future::join(loading, rotating).await;
        app.clock.advance(Duration::from_secs(31));
    }
}

#[actix_web::test]
async fn opaque_tokens_are_introspected_until_they_are_revoked() {
    if !are_here(&["node", "npm:oidc-provider"]) {
        return;
    }
    let provider = OidcProvider::start();
    let app = provider.builder().start().await;
    for header in ["x-opaque", "x-opaque-post"] {
        let token = provider.opaque("user_1").await;
        let ask = async || app.ask().header(header, &token).send().await;
        ask().await.assert_token();
        provider.get(&format!("/test/revoke?token={token}")).await;
        app.clock.advance(Duration::from_secs(31));
        ask().await.assert_error(401, "invalid_credentials");
    }
    let nonsense = app.ask().header("x-opaque", "nonsense").send().await;
    nonsense.assert_error(401, "invalid_credentials");
}

#[actix_web::test]
async fn a_provider_may_go_down_and_come_back() {
    if !are_here(&["node", "npm:oidc-provider"]) {
        return;
    }
    let mut provider = OidcProvider::start();
    let app = provider.builder().start().await;
    let token = provider.jwt("user_1", "ES256").await;
    let unseen = provider.jwt("user_2", "ES256").await;
    let opaque = provider.opaque("user_3").await;
    ask(&app, &token).await.assert_token();
    provider.go_down();
    ask(&app, &token).await.assert_token();
    ask(&app, &unseen).await.assert_token();
    let asking = app.ask().header("x-opaque", &opaque).send().await;
    asking.assert_error(500, "internal");

    let late = provider.builder().start().await;
    ask(&late, &token).await.assert_error(500, "internal");
    provider.come_back();
    eventually("the recovery", async || {
        ask(&late, &token).await.status == 200
    })
    .await;
    let again = provider.opaque("user_3").await;
    let asking = app.ask().header("x-opaque", &again).send().await;
    asking.assert_token();
}

#[actix_web::test]
async fn a_user_whom_auth_js_signed_in_may_upload() {
    if !are_here(&["node", "npm:@auth/express"]) {
        return;
    }
    let (_process, url) = Running::provider("authjs.mjs", &[]);
    let identity = crate::guides::guide("identities.site").replace("http://app:3000", &url);
    // Users come over http.
    let app = Gate::accepting(["site"])
        .include(&identity)
        .without("identities.site.headers")
        .policy("member", workspace_member().claim("workspaces"))
        .chain(["signed-in", "member"])
        .start()
        .await;
    let session = sign_in_with_auth_js(&url).await;
    let started = Instant::now();
    let request = app
        .ask()
        .header("cookie", &format!("theme=dark; {session}"));
    request.send().await.assert_token();
    assert!(started.elapsed() < Duration::from_secs(2));
    let stranger = app
        .ask()
        .header("cookie", &session)
        .json(&json!({ "workspace": "ws_9" }))
        .await;
    stranger.assert_error(403, "workspace_forbidden");
    // Not the last character, because some of its bits carry no information.
    let mut edited = session.clone();
    let at = edited.len() - 10;
    let other = if &edited[at..=at] == "A" { "B" } else { "A" };
    edited.replace_range(at..=at, other);
    let request = app.ask().header("cookie", &edited);
    request.send().await.assert_error(401, "not_signed_in");
    app.ask().send().await.assert_error(401, "not_signed_in");
}

/// Signs in as a browser does; returns the session's cookie.
async fn sign_in_with_auth_js(url: &str) -> String {
    let client = awc::Client::builder().disable_redirects().finish();
    let mut answer = client
        .get(format!("{url}/api/auth/csrf"))
        .send()
        .await
        .unwrap();
    let csrf: serde_json::Value = answer.json().await.unwrap();
    let cookie = |answer: &awc::http::header::HeaderMap, name: &str| {
        let cookies = answer.get_all("set-cookie");
        let cookies = cookies.map(|cookie| cookie.to_str().unwrap().to_owned());
        let found = cookies.into_iter().find(|cookie| cookie.starts_with(name));
        found.map(|cookie| cookie.split(';').next().unwrap().to_owned())
    };
    let csrf_cookie = cookie(answer.headers(), "authjs.csrf-token").unwrap();
    let form = [
        ("csrfToken", csrf["csrfToken"].as_str().unwrap()),
        ("name", "ada"),
    ];
    let answer = client
        .post(format!("{url}/api/auth/callback/credentials"))
        .insert_header(("cookie", csrf_cookie))
        .send_form(&form)
        .await
        .unwrap();
    cookie(answer.headers(), "authjs.session-token").unwrap()
}
