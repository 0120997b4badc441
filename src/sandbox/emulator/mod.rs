//! An in-memory emulator of Imgwire for the sandbox and the tests. It listens on loopback, and simulates faults on
//! demand.
//!
//! It follows the published API: paths, formats of responses and errors, a Server API Key for tokens and lists, a
//! Client Key for uploads, and tokens that expire and can be used once.

mod api;
mod misbehave;
mod state;

use std::{io, net::Ipv4Addr, sync::Arc};

use actix_cors::Cors;
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, rt, web};
use jiff::Timestamp;

pub use self::{
    api::{CLIENT_KEY, SERVER_API_KEY},
    state::Misbehaviour,
};
use self::{misbehave::misbehave, state::State};

/// The emulator stops when this is dropped.
pub struct Emulator {
    state: Arc<State>,
    url: String,
    server: ServerHandle,
}

impl Emulator {
    /// Listens on a free port of 127.0.0.1. Must be called within an actix system.
    pub fn start() -> io::Result<Self> {
        let state = Arc::new(State::default());
        let shared = state.clone();
        let server = HttpServer::new(move || {
            let state = web::Data::from(shared.clone());
            App::new()
                .app_data(state.clone())
                .configure(api::mount)
                .wrap(from_fn(move |request, next| {
                    misbehave(state.clone(), request, next)
                }))
                // Pages of any origin may upload with a Client Key.
                .wrap(Cors::permissive())
        })
        .workers(1)
        .disable_signals()
        .on_connect({
            let state = state.clone();
            move |connection, extensions| {
                state.lock().connections += 1;
                misbehave::keep_socket(connection, extensions);
            }
        })
        .bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = server.addrs().first().copied();
        let port = address.map_or(0, |address| address.port());
        let url = format!("http://127.0.0.1:{port}");
        state.lock().url.clone_from(&url);
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        Ok(Self {
            state,
            url,
            server: handle,
        })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Misbehaves on all requests for a token, until it is called with `None`.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        self.state.lock().misbehaviour = how;
    }

    /// Misbehaves on the next requests for a token, one for each of `ways`. Takes precedence over
    /// [`misbehave`](Self::misbehave).
    pub fn misbehave_next(&self, ways: impl IntoIterator<Item = Misbehaviour>) {
        self.state.lock().next.extend(ways);
    }

    /// The number of created tokens.
    #[must_use]
    pub fn created(&self) -> usize {
        self.state.lock().created
    }

    /// The number of requests for a token, including failed ones.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state.lock().asked
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// The headers of the last request for a token, with lower-case names.
    #[must_use]
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.state.lock().last_headers.clone()
    }

    pub fn expire_tokens(&self) {
        for token in self.state.lock().tokens.values_mut() {
            token.expires_at = Timestamp::UNIX_EPOCH;
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // `stop` sends its command at once; the future only waits for the result.
        drop(self.server.stop(false));
    }
}
