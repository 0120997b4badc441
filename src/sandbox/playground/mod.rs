//! The playground: a page on which users request tokens and see which policy decided. Only the sandbox serves it.

mod admission;
pub(crate) mod config;
pub(crate) mod credential;
mod decision;
pub(crate) mod events;
mod page;
mod users;
mod webhook;

use std::sync::{Arc, OnceLock};

use actix_web::{Error, HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use self::users::demo_users;
use self::{
    admission::{Key, PageKey, admit},
    config::Config,
    events::Inbox,
    users::WORKSPACES,
};
use crate::{
    http::{management::read, refuse, worker},
    sandbox::emulator::{CLIENT_KEY, Emulator, Mood},
    server::reload::Reloader,
    telemetry::HasDecision,
};

pub(crate) struct Playground {
    /// The key in the URL of the page, which the page sends with every call.
    pub(crate) key: String,
    /// The secret that signs the tokens of the demo users. `None` for the user's own config.
    pub(crate) demo_secret: Option<String>,
    pub(crate) config: Config,
    pub(crate) emulator: Arc<Emulator>,
    /// The events that the gate sent.
    pub(crate) inbox: Inbox,
    /// Set once the gate is built.
    pub(crate) running: OnceLock<Running>,
}

pub(crate) struct Running {
    pub(crate) reloader: Arc<Reloader>,
    /// The URL of the management listener.
    pub(crate) management: String,
}

impl Playground {
    pub(crate) fn mount(self: &Arc<Self>, config: &mut web::ServiceConfig) {
        config
            .app_data(web::Data::from(self.clone()))
            .app_data(PageKey(self.key.clone()))
            .configure(page::mount)
            .configure(webhook::mount)
            .route("/playground/state", web::get().to(state))
            .route("/playground/explain", web::post().to(decision::explain))
            .route("/playground/log", web::get().to(decision::log))
            .route("/playground/quota", web::post().to(decision::give_back))
            .route("/playground/imgwire", web::post().to(imgwire))
            .route("/playground/config", web::post().to(change_config));
    }

    fn is_demo(&self) -> bool {
        self.demo_secret.is_some()
    }

    /// The demo users at a time in seconds.
    pub(crate) fn users(&self, now: i64) -> Value {
        let secret = self.demo_secret.as_deref();
        secret.map_or_else(|| json!([]), |secret| demo_users(secret, now))
    }
}

/// A response to a call of the page.
fn answer(body: &Value) -> HttpResponse {
    without_line(HttpResponse::Ok().json(body))
}

/// Leaves a response out of the log. The page polls, so its calls would bury the lines about the gate.
fn without_line(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(HasDecision);
    response
}

async fn state(
    request: HttpRequest,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let now = worker(&request).gate.clock.now();
    let management = playground.running.get().map(|running| &running.management);
    Ok(answer(&json!({
        "users": playground.users(now.as_second()),
        "workspaces": if playground.is_demo() { &WORKSPACES[..] } else { &[] },
        "rules": playground.config.rules(),
        "receivesEvents": playground.config.receives_events(),
        "config": playground.config.describe(),
        "imgwire": {
            "url": playground.emulator.url(),
            "clientKey": CLIENT_KEY,
            "moods": playground.emulator.moods(),
        },
        "management": management,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    mood: Mood,
}

async fn imgwire(
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let Wanted { mood } = match read(&request, &body) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(refuse(&request, &error)),
    };
    playground.emulator.set_mood(mood);
    Ok(answer(&json!({ "moods": playground.emulator.moods() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    /// `None` for the file of the user.
    text: Option<String>,
    apply: bool,
}

async fn change_config(
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    let Edited { text, apply } = match read(&request, &body) {
        Ok(edited) => edited,
        Err(error) => return Ok(refuse(&request, &error)),
    };
    let reloader = playground.running.get().filter(|_| apply);
    let reloader = reloader.map(|running| &*running.reloader);
    let now = worker(&request).gate.clock.now();
    let changed = playground.config.change(text, reloader, now);
    Ok(match changed {
        Ok(checked) => answer(&checked.describe()),
        Err(error) => answer(&json!({
            "text": null,
            "faults": [{ "text": format!("the file cannot be read: {error}") }],
            "warnings": [],
            "applied": false,
        })),
    })
}
