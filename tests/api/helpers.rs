//! A gate to test: the real server, a real config, the emulated Imgwire.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::http::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use imgwire_gate::{
    config::Faults,
    sandbox::emulator::{Emulator, SERVER_API_KEY},
    server::reload::{ReloadError, Reloader},
    server::settings::Settings,
    server::{Application, Builder, StartError, Stop},
    stores::{OpenError, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use policies::{Clock, SystemClock};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const ROUTE: &str = "/api/imgwire/upload-token";
pub(crate) const SESSION: &str = "/api/imgwire/session";
pub(crate) const SECRET: &str =
    "the shared secret of the tests' app, long enough for HS512 or any other";
pub(crate) const SESSION_KEY: &str =
    "the key that the tests' session cookie is encrypted with, at least 64 bytes long";

const POLICIES: &str = r#"
    [policies.signed-in]
    kind = "signed_in"
    accept = ["app", "browser"]
    [policies.member]
    kind = "workspace_member"
    claim = "workspaces"
    [policies.burst]
    kind = "rate_limit"
    per = ["user"]
    limit = 30
    period = "1m"
    [policies.daily]
    kind = "quota"
    per = ["workspace"]
    limit = 500
    window = "day"
    store = "main"
"#;

/// What a gate is made of; every part has a default that works.
pub(crate) struct Recipe {
    pub(crate) server: String,
    pub(crate) management: String,
    pub(crate) imgwire: String,
    pub(crate) session: String,
    /// Whose credentials may be exchanged for a session.
    pub(crate) exchange: String,
    pub(crate) app: String,
    /// More sections.
    pub(crate) more: String,
    pub(crate) policies: String,
    /// The policies of the usual route; nothing where `policies` has routes itself.
    pub(crate) chain: String,
    /// More routes.
    pub(crate) routes: String,
    pub(crate) base_url: Option<String>,
    /// Where it listens; a free port where nothing is said.
    pub(crate) bind: Option<String>,
    pub(crate) secrets: HashMap<String, String>,
    pub(crate) clock: Arc<TestClock>,
    /// Registers kinds of policy.
    pub(crate) kinds: fn(Builder) -> Builder,
}

impl Default for Recipe {
    fn default() -> Self {
        let secrets = [
            ("TEST_API_KEY", SERVER_API_KEY),
            ("TEST_SECRET", SECRET),
            ("TEST_SESSION_KEY", SESSION_KEY),
        ];
        Self {
            server: String::new(),
            management: String::new(),
            imgwire: String::new(),
            session: String::new(),
            exchange: r#"["app"]"#.to_owned(),
            app: r#"algorithms = ["HS256"]
                secret = { env = "TEST_SECRET" }
                audience = ["imgwire-gate"]
                from = ["bearer", "cookie:__session", "header:x-app-token"]"#
                .to_owned(),
            more: String::new(),
            policies: POLICIES.to_owned(),
            chain: r#"["signed-in", "member", "burst", "daily"]"#.to_owned(),
            routes: String::new(),
            base_url: None,
            bind: None,
            secrets: secrets
                .map(|(name, secret)| (name.to_owned(), secret.to_owned()))
                .into(),
            clock: Arc::default(),
            kinds: |builder| builder,
        }
    }
}

impl Recipe {
    /// A gate that lets in whoever `accept` (a list of names) signs in, by these `[identities]`.
    pub(crate) fn accepting(accept: &str, identities: &str) -> Self {
        Self {
            more: identities.to_owned(),
            policies: format!("[policies.signed-in]\nkind = \"signed_in\"\naccept = {accept}"),
            chain: r#"["signed-in"]"#.to_owned(),
            ..Self::default()
        }
    }

    /// The same with a secret of this name.
    pub(crate) fn with_secret(mut self, name: &str, secret: &str) -> Self {
        self.secrets.insert(name.to_owned(), secret.to_owned());
        self
    }

    /// The config file.
    pub(crate) fn config(&self, base_url: &str, folder: &std::path::Path) -> String {
        let Self {
            server,
            management,
            imgwire,
            session,
            exchange,
            app,
            more,
            policies,
            chain,
            routes,
            ..
        } = self;
        let route = if chain.is_empty() {
            String::new()
        } else {
            format!("[[routes]]\npath = \"{ROUTE}\"\npolicies = {chain}")
        };
        let bind = self.bind.as_deref().unwrap_or("127.0.0.1:0");
        let database = folder.join("gate.db");
        let delay = if server.contains("shutdown_delay") {
            ""
        } else {
            "shutdown_delay = \"10ms\""
        };
        format!(
            r#"
            [server]
            bind = "{bind}"
            workers = 2
            {server}
            {delay}
            [management]
            bind = "127.0.0.1:0"
            {management}
            [imgwire]
            base_url = "{base_url}"
            api_key = {{ env = "TEST_API_KEY" }}
            {imgwire}
            [session]
            key = {{ env = "TEST_SESSION_KEY" }}
            {session}
            [stores.main]
            url = "sqlite:{}"
            [identities.app]
            kind = "jwt"
            {app}
            [identities.browser]
            kind = "session"
            exchange = {exchange}
            {more}
            {policies}
            {route}
            {routes}
            "#,
            database.display()
        )
    }

    fn builder(&self) -> Builder {
        (self.kinds)(Application::builder().clock(self.clock.clone()))
    }

    /// Reads the config file.
    fn settings(&self, base_url: &str, folder: &std::path::Path) -> Result<Settings, Faults> {
        let environment = |name: &str| self.secrets.get(name).cloned();
        let config = self.config(self.base_url.as_deref().unwrap_or(base_url), folder);
        self.builder().load("gate.toml", &config, &environment)
    }

    pub(crate) async fn start(self) -> TestApp {
        TestApp::start_in(self, tempfile::tempdir().unwrap()).await
    }
}

/// A gate that runs, with its Imgwire and a client.
pub(crate) struct TestApp {
    pub(crate) url: String,
    pub(crate) management: String,
    pub(crate) imgwire: Emulator,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) folder: TempDir,
    reloader: Arc<Reloader>,
    client: awc::Client,
    stop: Option<oneshot::Sender<()>>,
    running: Option<actix_web::rt::task::JoinHandle<std::io::Result<()>>>,
}

impl TestApp {
    /// A gate with the usual chain.
    pub(crate) async fn start() -> Self {
        Recipe::default().start().await
    }

    /// A gate whose counters are in `folder`.
    pub(crate) async fn start_in(recipe: Recipe, folder: TempDir) -> Self {
        let imgwire = Emulator::start().unwrap();
        let build = || {
            let settings = recipe.settings(imgwire.url(), folder.path());
            let settings = settings.unwrap_or_else(|faults| panic!("{faults}"));
            recipe.builder().build(settings)
        };
        let mut built = build();
        // A gate that has just stopped in this process may have a last thread that still ends.
        for _ in 0..500 {
            let Err(StartError::Store(StoreError {
                source: OpenError::InUse(_),
                ..
            })) = &built
            else {
                break;
            };
            tokio::time::sleep(Duration::from_millis(10)).await;
            built = build();
        }
        let application = built.unwrap();
        let address = application.address().map(|address| address.to_string());
        let url = format!("http://{}", address.unwrap_or_default());
        let management = format!("http://{}", application.management_address().unwrap());
        let reloader = application.reloader();
        let (stop, stopped) = oneshot::channel();
        let running = actix_web::rt::spawn(application.run_until(async {
            let _ = stopped.await;
            Stop::Drain
        }));
        Self {
            url,
            management,
            imgwire,
            clock: recipe.clock,
            folder,
            reloader,
            client: awc::Client::builder()
                .disable_redirects()
                .timeout(Duration::from_secs(30))
                .finish(),
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// Puts the rules of another recipe in force, while the gate runs.
    pub(crate) fn reload(&self, recipe: &Recipe) -> Result<(), ReloadError> {
        let settings = recipe.settings(self.imgwire.url(), self.folder.path());
        self.reloader.reload(settings.map_err(ReloadError::from))
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        Request(self.client.request(method, format!("{}{path}", self.url)))
    }

    /// A request for a token, by nobody yet.
    pub(crate) fn ask(&self) -> Request {
        self.request(Method::POST, ROUTE)
    }

    /// Asks for a token as an ordinary member.
    pub(crate) async fn ask_as(&self, token: &Token) -> Answer {
        self.ask().bearer(&token.sign()).send().await
    }

    /// What the management listener says.
    pub(crate) async fn manage(&self, path: &str) -> Answer {
        Request(self.client.get(format!("{}{path}", self.management)))
            .send()
            .await
    }

    /// A request to the management listener.
    pub(crate) fn request_management(&self, method: Method, path: &str) -> Request {
        let url = format!("{}{path}", self.management);
        Request(self.client.request(method, url))
    }

    /// One metric's value, by its whole line up to it.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let text = self.manage("/metrics").await.text;
        let found = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Tells the gate to stop.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until a gate that was told to stop has stopped; gives back its folder.
    pub(crate) async fn stopped(mut self) -> TempDir {
        self.running.take().unwrap().await.unwrap().unwrap();
        self.folder
    }
}

/// A request under construction.
pub(crate) struct Request(pub(crate) awc::ClientRequest);

impl Request {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.append_header((name, value)))
    }

    /// A header that replaces the one that the client sends by itself.
    pub(crate) fn instead(self, name: &str, value: &str) -> Self {
        Self(self.0.insert_header((name, value)))
    }

    /// A header of bytes that need not be text.
    pub(crate) fn bytes(self, name: &str, value: &[u8]) -> Self {
        self.header_value(name, HeaderValue::from_bytes(value).unwrap())
    }

    /// The same with a value that may be any bytes.
    pub(crate) fn header_value(self, name: &str, value: HeaderValue) -> Self {
        Self(self.0.append_header((name, value)))
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) async fn send(self) -> Answer {
        self.send_body("").await
    }

    pub(crate) async fn json(self, body: &Value) -> Answer {
        self.header("content-type", "application/json")
            .send_body(body.to_string())
            .await
    }

    pub(crate) async fn send_body(self, body: impl Into<bytes::Bytes>) -> Answer {
        let body = body.into();
        let sent = if body.is_empty() {
            self.0.send().await
        } else {
            self.0.send_body(body).await
        };
        let mut response = sent.expect("the gate answers");
        let body = response.body().await.expect("the answer is whole");
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// `name=value` of the cookie that the answer sets.
    pub(crate) fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap()
    }

    /// Checks status and code of an error, and what every error has.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{self:?}"
        );
        assert_eq!(self.json["error"], self.status.canonical_reason().unwrap());
        assert_eq!(self.json["requestId"], self.header("x-request-id"));
        assert_eq!(self.json.as_object().unwrap().len(), 3, "{self:?}");
        self.assert_envelope();
    }

    /// Checks that the answer holds a token, and what every answer has.
    #[track_caller]
    pub(crate) fn assert_token(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(
            self.json["uploadToken"]
                .as_str()
                .unwrap()
                .starts_with("ut_"),
            "{self:?}"
        );
        self.assert_envelope();
    }

    #[track_caller]
    pub(crate) fn assert_envelope(&self) {
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(self.header("content-type"), "application/json");
    }
}

/// A token of the app, under construction.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: Header,
    pub(crate) claims: Map<String, Value>,
}

impl Token {
    /// A token of `user`, who is a member of workspace `ws_1` alone.
    pub(crate) fn of(user: &str) -> Self {
        let claims = json!({
            "sub": user,
            "aud": "imgwire-gate",
            "exp": Timestamp::now().as_second() + 3600,
            "workspaces": ["ws_1"],
        });
        let Value::Object(claims) = claims else {
            unreachable!()
        };
        Self {
            header: Header::new(Algorithm::HS256),
            claims,
        }
    }

    pub(crate) fn with(mut self, claim: &str, value: Value) -> Self {
        self.claims.insert(claim.to_owned(), value);
        self
    }

    pub(crate) fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    pub(crate) fn sign(&self) -> String {
        self.sign_with(&EncodingKey::from_secret(SECRET.as_bytes()))
    }

    pub(crate) fn sign_with(&self, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&self.header, &self.claims, key).unwrap()
    }
}

/// A clock that goes as the machine's does, and jumps when it is told to.
#[derive(Default)]
pub(crate) struct TestClock {
    system: SystemClock,
    jump: Mutex<(SignedDuration, Duration)>,
}

impl TestClock {
    /// Lets time pass, for the time of day as well as for what has elapsed.
    pub(crate) fn advance(&self, by: Duration) {
        let mut jump = self.jump.lock().unwrap();
        jump.0 += SignedDuration::try_from(by).unwrap();
        jump.1 += by;
    }

    /// Sets the time of day.
    pub(crate) fn set(&self, to: Timestamp) {
        self.jump.lock().unwrap().0 = to.duration_since(self.system.now());
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.system
            .now()
            .checked_add(self.jump.lock().unwrap().0)
            .unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed() + self.jump.lock().unwrap().1
    }
}

/// Polls until `ready` says so, for ten seconds at most.
pub(crate) async fn eventually(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if ready().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen in ten seconds");
}
