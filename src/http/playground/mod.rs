//! The sandbox's page: demo users ask for tokens and see which rule decided. Only the sandbox serves it.

mod admission;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentType},
    web,
};
use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::admission::{HasKey, HasKeyInUrl, SameOrigin};
use crate::{
    config::{Faults, Settings},
    gate::explain::{self, DescribedRequest},
    http::{error::ApiError, is_json, refuse, worker},
    imgwire::emulator::{CLIENT_KEY, Emulator, Misbehaviour},
    server::reload::Reloader,
};

const SLOW: Duration = Duration::from_secs(3);

const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// The page runs the same function that the guide for front ends shows.
const FRONTEND_GUIDE: &str = include_str!("../../../docs/frontend.md");

/// Reads a config file as the sandbox reads its own.
pub(crate) type Load = Box<dyn Fn(&str) -> Result<Settings, Faults> + Send + Sync>;

pub(crate) struct Playground {
    /// The key in the page's URL, which the page sends with every call.
    key: String,
    people: Vec<Person>,
    route: String,
    config: &'static str,
    load: Load,
    emulator: Arc<Emulator>,
    /// Set once the gate is built.
    reloader: OnceLock<Arc<Reloader>>,
}

#[derive(Serialize)]
struct Person {
    id: &'static str,
    label: &'static str,
    /// `None` for a visitor who is not signed in.
    token: Option<String>,
    workspace: Option<&'static str>,
}

const WORKSPACES: [&str; 2] = ["ws_1", "ws_2"];

impl Playground {
    /// Makes the demo users, whose tokens are signed with `secret` at `now`. The page requires `key`.
    pub(crate) fn new(
        key: String,
        secret: &str,
        now: i64,
        route: String,
        config: &'static str,
        load: Load,
        emulator: Arc<Emulator>,
    ) -> Self {
        let token = |subject: &str, workspaces: Value, plan: &str, lasts: i64| {
            let claims = json!({
                "sub": subject,
                "aud": "imgwire-gate",
                "exp": now + lasts,
                "workspaces": workspaces,
                "plan": plan,
            });
            let key = EncodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::encode(&Header::default(), &claims, &key).ok()
        };
        let of = |id: &str, role: &str| json!([{ "id": id, "role": role }]);
        let both = json!([{ "id": "ws_1", "role": "owner" }, { "id": "ws_2", "role": "owner" }]);
        let person = |id, label, token, workspace| Person {
            id,
            label,
            token,
            workspace,
        };
        let lasts = TOKEN_SECONDS;
        Self {
            key,
            people: vec![
                person(
                    "editor",
                    "user_1, editor of ws_1, free plan",
                    token("user_1", of("ws_1", "editor"), "free", lasts),
                    None,
                ),
                person(
                    "owner",
                    "user_2, owner of ws_1 and ws_2, pro plan",
                    token("user_2", both, "pro", lasts),
                    Some("ws_2"),
                ),
                person(
                    "viewer",
                    "user_3, viewer of ws_1",
                    token("user_3", of("ws_1", "viewer"), "free", lasts),
                    None,
                ),
                person(
                    "stranger",
                    "user_4, member of no workspace",
                    token("user_4", json!([]), "free", lasts),
                    Some("ws_1"),
                ),
                person(
                    "expired",
                    "user_1 with a token that is over",
                    token("user_1", of("ws_1", "editor"), "free", -3600),
                    None,
                ),
                person("nobody", "nobody: not signed in", None, Some("ws_1")),
            ],
            route,
            config,
            load,
            emulator,
            reloader: OnceLock::new(),
        }
    }

    pub(crate) fn set_reloader(&self, reloader: Arc<Reloader>) {
        // The sandbox sets it once.
        let _ = self.reloader.set(reloader);
    }

    pub(crate) fn mount(self: &Arc<Self>, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::from(self.clone()))
            .route("/", web::get().to(page))
            .route("/playground.css", web::get().to(style))
            .route("/playground.js", web::get().to(script))
            .route("/get-upload-token.js", web::get().to(token_function))
            .route("/playground/state", web::get().to(state))
            .route("/playground/explain", web::post().to(explain))
            .route("/playground/imgwire", web::post().to(imgwire))
            .route("/playground/config", web::post().to(config_text));
    }
}

async fn page(_: HasKeyInUrl, playground: web::Data<Playground>) -> HttpResponse {
    let imgwire = playground.emulator.url();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {imgwire}; \
         img-src data: {imgwire}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(include_str!("page.html"))
}

async fn style(_: SameOrigin) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/css; charset=utf-8")
        .body(include_str!("page.css"))
}

async fn script(_: SameOrigin) -> HttpResponse {
    javascript(include_str!("page.js"))
}

async fn token_function(_: SameOrigin) -> HttpResponse {
    let (_, rest) = FRONTEND_GUIDE.split_once("```js\n").unwrap_or_default();
    let (function, _) = rest.split_once("```").unwrap_or_default();
    javascript(function)
}

fn javascript(text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/javascript; charset=utf-8")
        .body(text)
}

async fn state(_: HasKey, playground: web::Data<Playground>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "people": playground.people,
        "workspaces": WORKSPACES,
        "route": playground.route,
        "imgwire": playground.emulator.url(),
        "clientKey": CLIENT_KEY,
        "config": playground.config,
    }))
}

fn read<'a, T: Deserialize<'a>>(request: &HttpRequest, body: &'a [u8]) -> Result<T, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    serde_json::from_slice(body).map_err(|_| ApiError::BadRequest)
}

async fn explain(_: HasKey, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let described: DescribedRequest = match read(&request, &body) {
        Ok(described) => described,
        Err(error) => return refuse(&request, &error),
    };
    match explain::explain(&worker(&request).gate, described).await {
        Ok(explanation) => HttpResponse::Ok().json(explanation),
        Err(_) => refuse(&request, &ApiError::NotFound),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Fine,
    Slow,
    Broken,
    Gone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    how: How,
}

async fn imgwire(
    _: HasKey,
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> HttpResponse {
    let Behaviour { how } = match read(&request, &body) {
        Ok(behaviour) => behaviour,
        Err(error) => return refuse(&request, &error),
    };
    playground.emulator.misbehave(match how {
        How::Fine => None,
        How::Slow => Some(Misbehaviour::Slow(SLOW)),
        How::Broken => Some(Misbehaviour::Status(503, None)),
        How::Gone => Some(Misbehaviour::Reset),
    });
    HttpResponse::Ok().json(json!({ "done": true }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    text: String,
    apply: bool,
}

async fn config_text(
    _: HasKey,
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> HttpResponse {
    let Edited { text, apply } = match read(&request, &body) {
        Ok(edited) => edited,
        Err(error) => return refuse(&request, &error),
    };
    let (faults, applied) = match ((playground.load)(&text), playground.reloader.get()) {
        (Err(faults), _) => (faults.to_string().lines().map(fault).collect(), false),
        (Ok(settings), Some(reloader)) if apply => match reloader.reload(Ok(settings)) {
            Ok(()) => (Vec::new(), true),
            Err(error) => (vec![json!({ "line": 1, "text": error.to_string() })], false),
        },
        (Ok(_), _) => (Vec::new(), false),
    };
    HttpResponse::Ok().json(json!({ "faults": faults, "applied": applied }))
}

/// A fault, `file:line:column: key: what is wrong`, with its line.
fn fault(text: &str) -> Value {
    let line = text
        .split(':')
        .nth(1)
        .and_then(|line| line.parse::<u32>().ok());
    json!({ "line": line.unwrap_or(1), "text": text })
}
