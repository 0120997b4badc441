//! An emulator of Imgwire, for the sandbox and the tests: on loopback, in memory, and misbehaving on demand.
//!
//! It keeps to the published API: the paths, the shapes of answers and errors, a Server API Key for tokens
//! and lists, a Client Key for uploads, a token that is used once and not after its expiry.

mod api;
mod misbehave;
mod state;

use std::{io, net::Ipv4Addr, sync::Arc};

use actix_cors::Cors;
use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, rt, web};

pub use self::misbehave::Misbehaviour;
use self::{misbehave::misbehave, state::State};

/// The Server API Key that the emulator takes.
pub const SERVER_API_KEY: &str = "sk_emulator";

/// The Client Key that the emulator takes.
pub const CLIENT_KEY: &str = "ck_emulator";

/// A running emulator; it ends when it is dropped.
pub struct Emulator {
    state: Arc<State>,
    url: String,
    server: ServerHandle,
}

impl Emulator {
    /// Starts an emulator on a free port of 127.0.0.1, within the running actix system.
    ///
    /// # Errors
    ///
    /// When no port can be opened.
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
                // Pages of any origin upload, as far as a Client Key lets them.
                .wrap(Cors::permissive())
        })
        .workers(1)
        .disable_signals()
        .on_connect({
            let state = state.clone();
            move |connection, extensions| {
                state.connected();
                misbehave::keep_socket(connection, extensions);
            }
        })
        .bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = server.addrs().first().copied();
        let port = address.map_or(0, |address| address.port());
        let url = format!("http://127.0.0.1:{port}");
        state.set_url(&url);
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        Ok(Self {
            state,
            url,
            server: handle,
        })
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Misbehaves from now on, or not any more.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        self.state.set_misbehaviour(how);
    }

    /// Misbehaves in these ways on the next requests, one each, before anything else.
    pub fn misbehave_next(&self, ways: impl IntoIterator<Item = Misbehaviour>) {
        self.state.push_misbehaviours(ways);
    }

    /// How many tokens were created.
    #[must_use]
    pub fn created(&self) -> usize {
        self.state.created()
    }

    /// How many requests for a token arrived, whatever became of them.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state.asked()
    }

    /// How many connections were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections()
    }

    /// The headers of the last request for a token, by lower-case name.
    #[must_use]
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.state.last_headers()
    }

    /// Lets every token that exists expire.
    pub fn expire_tokens(&self) {
        self.state.expire_tokens();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Sent at once, whether or not anyone waits for it.
        drop(self.server.stop(false));
    }
}
