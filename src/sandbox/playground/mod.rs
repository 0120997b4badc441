//! The playground: a page on which demo users request tokens and see which policy decided. Only the sandbox serves it.

mod admission;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{
    Error, HttpRequest, HttpResponse, Route,
    http::header::{self, ContentType},
    web,
};
use jsonwebtoken::{EncodingKey, Header};
use serde::Deserialize;
use serde_json::{Value, json};

use self::admission::{Key, PageKey, admit};
use crate::{
    config::Faults,
    http::{
        management::{explain::explained, read},
        refuse, worker,
    },
    sandbox::emulator::{CLIENT_KEY, Emulator, Misbehaviour},
    server::{reload::Reloader, settings::Settings},
};

const SLOW: Duration = Duration::from_secs(3);

const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// The page runs the function that this guide shows.
const FRONTEND_GUIDE: &str = include_str!("../../../docs/frontend.md");

/// Loads a config like the sandbox's own.
pub(crate) type Load = Box<dyn Fn(&str) -> Result<Settings, Faults> + Send + Sync>;

pub(crate) struct Playground {
    /// The key in the URL of the page, which the page sends with every call.
    pub(crate) key: String,
    /// The demo users, see [`demo_users`].
    pub(crate) users: Value,
    pub(crate) route: String,
    pub(crate) config: &'static str,
    pub(crate) load: Load,
    pub(crate) emulator: Arc<Emulator>,
    /// Set once the gate is built.
    pub(crate) reloader: OnceLock<Arc<Reloader>>,
}

const WORKSPACES: [&str; 2] = ["ws_1", "ws_2"];

/// The demo users, whose tokens are signed with `secret` at `now`.
pub(crate) fn demo_users(secret: &str, now: i64) -> Value {
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
    json!([
        {
            "id": "editor",
            "label": "user_1, editor of ws_1, free plan",
            "token": token("user_1", of("ws_1", "editor"), "free", TOKEN_SECONDS),
            "workspace": null,
        },
        {
            "id": "owner",
            "label": "user_2, owner of ws_1 and ws_2, pro plan",
            "token": token("user_2", both, "pro", TOKEN_SECONDS),
            "workspace": "ws_2",
        },
        {
            "id": "viewer",
            "label": "user_3, viewer of ws_1",
            "token": token("user_3", of("ws_1", "viewer"), "free", TOKEN_SECONDS),
            "workspace": null,
        },
        {
            "id": "stranger",
            "label": "user_4, member of no workspace",
            "token": token("user_4", json!([]), "free", TOKEN_SECONDS),
            "workspace": "ws_1",
        },
        {
            "id": "expired",
            "label": "user_1 with an expired token",
            "token": token("user_1", of("ws_1", "editor"), "free", -3600),
            "workspace": null,
        },
        {
            "id": "nobody",
            "label": "not signed in",
            "token": null,
            "workspace": "ws_1",
        },
    ])
}

impl Playground {
    pub(crate) fn mount(self: &Arc<Self>, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::from(self.clone()))
            .app_data(PageKey(self.key.clone()))
            .route("/", web::get().to(page))
            .route(
                "/playground.css",
                file("text/css", include_str!("page.css")),
            )
            .route("/playground.js", javascript(include_str!("page.js")))
            .route("/get-upload-token.js", javascript(token_function()))
            .route("/playground/state", web::get().to(state))
            .route("/playground/explain", web::post().to(explain))
            .route("/playground/imgwire", web::post().to(imgwire))
            .route("/playground/config", web::post().to(config_text));
    }
}

async fn page(
    request: HttpRequest,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InUrl)?;
    let imgwire = playground.emulator.url();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {imgwire}; \
         img-src data: {imgwire}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Ok(HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(include_str!("page.html")))
}

/// A static file of the page.
fn file(kind: &'static str, text: &'static str) -> Route {
    web::get().to(move |request: HttpRequest| async move {
        admit(&request, Key::NotRequired)?;
        let kind = format!("{kind}; charset=utf-8");
        Ok::<_, Error>(HttpResponse::Ok().content_type(kind).body(text))
    })
}

fn javascript(text: &'static str) -> Route {
    file("text/javascript", text)
}

fn token_function() -> &'static str {
    let (_, rest) = FRONTEND_GUIDE.split_once("```js\n").unwrap_or_default();
    let (function, _) = rest.split_once("```").unwrap_or_default();
    function
}

async fn state(
    request: HttpRequest,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    Ok(HttpResponse::Ok().json(json!({
        "users": playground.users,
        "workspaces": WORKSPACES,
        "route": playground.route,
        "imgwire": playground.emulator.url(),
        "clientKey": CLIENT_KEY,
        "config": playground.config,
    })))
}

async fn explain(request: HttpRequest, body: web::Bytes) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    Ok(explained(&request, &worker(&request).gate, &body).await)
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
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let Behaviour { how } = match read(&request, &body) {
        Ok(behaviour) => behaviour,
        Err(error) => return Ok(refuse(&request, &error)),
    };
    playground.emulator.misbehave(match how {
        How::Fine => None,
        How::Slow => Some(Misbehaviour::Slow(SLOW)),
        How::Broken => Some(Misbehaviour::Status(503, None)),
        How::Gone => Some(Misbehaviour::Reset),
    });
    Ok(HttpResponse::Ok().json(json!({ "done": true })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    text: String,
    apply: bool,
}

async fn config_text(
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let Edited { text, apply } = match read(&request, &body) {
        Ok(edited) => edited,
        Err(error) => return Ok(refuse(&request, &error)),
    };
    let (faults, applied) = match ((playground.load)(&text), playground.reloader.get()) {
        (Err(faults), _) => (faults.to_string().lines().map(fault).collect(), false),
        (Ok(settings), Some(reloader)) if apply => match reloader.reload(Ok(settings)) {
            Ok(()) => (Vec::new(), true),
            Err(error) => (vec![json!({ "line": 1, "text": error.to_string() })], false),
        },
        (Ok(_), _) => (Vec::new(), false),
    };
    Ok(HttpResponse::Ok().json(json!({ "faults": faults, "applied": applied })))
}

/// An error in a config, `file:line:column: key: message`, with its line number.
fn fault(text: &str) -> Value {
    let line = text
        .split(':')
        .nth(1)
        .and_then(|line| line.parse::<u32>().ok());
    json!({ "line": line.unwrap_or(1), "text": text })
}
