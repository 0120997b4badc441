//! A gate that runs in the process of the test.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use imgwire_gate::{
    server::{
        StartError, Stop,
        reload::{ReloadError, Reloader},
    },
    stores::{OpenError, StoreError},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{Answer, Emulator, Gate, ROUTE, Request, TestClock, Token};

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
    /// A gate with the standard policies.
    pub(crate) async fn start() -> Self {
        Gate::standard().start().await
    }

    /// A gate whose counters are in `folder`.
    pub(super) async fn start_in(gate: Gate, folder: TempDir) -> Self {
        let imgwire = Emulator::start().unwrap();
        let build = || {
            let settings = gate.settings(imgwire.url(), folder.path());
            let settings = settings.unwrap_or_else(|faults| panic!("{faults}"));
            gate.builder().build(settings)
        };
        let mut built = build();
        // The last thread of a gate that stopped in this process may still hold the file.
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
            clock: gate.clock,
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

    /// Loads the policies, identities and routes of another config while the gate runs.
    pub(crate) fn reload(&self, gate: &Gate) -> Result<(), ReloadError> {
        let settings = gate.settings(self.imgwire.url(), self.folder.path());
        self.reloader.reload(settings.map_err(ReloadError::from))
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        Request(self.client.request(method, format!("{}{path}", self.url)))
    }

    /// A request for a token, without a credential.
    pub(crate) fn ask(&self) -> Request {
        self.request(Method::POST, ROUTE)
    }

    /// Asks for a token as an ordinary member.
    pub(crate) async fn ask_as(&self, token: &Token) -> Answer {
        self.ask().bearer(&token.sign()).send().await
    }

    /// Reads a path of the management listener.
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

    /// The value of a metric, given its line up to the value.
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

    /// Waits until a gate that was told to stop has stopped; returns its folder.
    pub(crate) async fn stopped(mut self) -> TempDir {
        self.running.take().unwrap().await.unwrap().unwrap();
        self.folder
    }
}
