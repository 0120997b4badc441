//! An emulator of Imgwire for the sandbox and the tests: on loopback, in memory, with faults on demand.
//!
//! It follows the published API: the paths, the shapes of responses and errors, a Server API Key for tokens and lists,
//! a Client Key for uploads, and tokens that can be used once and not after they expire.

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

/// Stops when it is dropped.
pub struct Emulator {
    state: Arc<State>,
    url: String,
    server: ServerHandle,
}

impl Emulator {
    /// Listens on a free port of 127.0.0.1, within the running actix system.
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

    /// `None` ends the misbehaviour.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        self.state.lock().misbehaviour = how;
    }

    /// Misbehaves on the next requests, once for each of `ways`. Takes precedence over [`misbehave`](Self::misbehave).
    pub fn misbehave_next(&self, ways: impl IntoIterator<Item = Misbehaviour>) {
        self.state.lock().next.extend(ways);
    }

    #[must_use]
    pub fn created(&self) -> usize {
        self.state.lock().created
    }

    /// All requests for a token, whatever the result.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state.lock().asked
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// Of the last request for a token, by lower-case name.
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
        // The command is sent at once; awaiting it is not required.
        drop(self.server.stop(false));
    }
}
