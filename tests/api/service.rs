//! A double of a service that the gate calls: an issuer of keys, an introspection endpoint, an app.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::StatusCode, rt, web,
};
use serde_json::Value;

use crate::helpers::eventually;

/// A service on loopback.
pub(crate) struct Service {
    pub(crate) url: String,
    port: u16,
    state: Arc<State>,
    server: ServerHandle,
}

#[derive(Default)]
struct State {
    replies: Mutex<HashMap<String, Reply>>,
    deciders: Mutex<HashMap<String, Decide>>,
    seen: Mutex<Vec<Seen>>,
}

/// Computes the answer to a body.
type Decide = fn(&Value) -> Value;

/// The answer under a path.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) delay: Duration,
}

/// A request that the service got.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(body: &Value) -> Self {
        Self::text(&body.to_string())
    }

    pub(crate) fn text(body: &str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_owned(),
            delay: Duration::ZERO,
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::text("")
        }
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Service {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(listener, Arc::default())
    }

    fn start_on(listener: TcpListener, state: Arc<State>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(shared.clone()))
                .default_service(web::to(reply))
        })
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
        let handle = server.handle();
        rt::spawn(server);
        Self {
            url: format!("http://127.0.0.1:{port}"),
            port,
            state,
            server: handle,
        }
    }

    /// Answers `reply` under `path` from now on.
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        let mut replies = self.state.replies.lock().unwrap();
        replies.insert(path.to_owned(), reply);
    }

    /// Answers under `path` with the result of `decide`.
    pub(crate) fn decide(&self, path: &str, decide: Decide) {
        let mut deciders = self.state.deciders.lock().unwrap();
        deciders.insert(path.to_owned(), decide);
    }

    /// The requests under `path`.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.path == path)
            .cloned()
            .collect()
    }

    /// How many requests came under `path`.
    pub(crate) fn count(&self, path: &str) -> usize {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.path == path).count()
    }

    /// The paths of all requests.
    pub(crate) fn all_seen(&self) -> Vec<String> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().map(|seen| seen.path.clone()).collect()
    }

    /// Stops the service: it no longer listens, and every connection is closed.
    pub(crate) async fn go_down(&self) {
        self.server.stop(false).await;
        // The worker stops a moment later and answers on open connections until then. It holds the state.
        eventually("the end of the service's worker", async || {
            Arc::strong_count(&self.state) == 1
        })
        .await;
    }

    /// Starts the service again on its port.
    pub(crate) async fn come_back(self) -> Self {
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        Self::start_on(listener, self.state)
    }
}

async fn reply(request: HttpRequest, body: String, state: web::Data<State>) -> HttpResponse {
    let path = request.path().to_owned();
    let headers = request.headers().iter();
    state.seen.lock().unwrap().push(Seen {
        method: request.method().to_string(),
        path: path.clone(),
        headers: headers
            .map(|(name, value)| {
                let text = std::str::from_utf8(value.as_bytes()).map(str::to_owned);
                // Other bytes are written as `\xfc`.
                let text = text.unwrap_or_else(|_| value.as_bytes().escape_ascii().to_string());
                (name.to_string(), text)
            })
            .collect(),
        body: body.clone(),
    });
    let decide = state.deciders.lock().unwrap().get(&path).copied();
    if let Some(decide) = decide {
        let answer = decide(&serde_json::from_str(&body).unwrap());
        return HttpResponse::Ok().json(answer);
    }
    let reply = state.replies.lock().unwrap().get(&path).cloned();
    let Some(reply) = reply else {
        return HttpResponse::NotFound().finish();
    };
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    let mut response = HttpResponse::build(StatusCode::from_u16(reply.status).unwrap());
    for header in reply.headers {
        response.append_header(header);
    }
    response.body(reply.body)
}
