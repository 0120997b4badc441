//! The client of Imgwire: one for each worker.

use std::{sync::Arc, time::Duration};

use actix_web::http::{
    Version,
    header::{self, HeaderName, HeaderValue},
};
use awc::Connector;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use policies::Clock;
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Creation, ImgwireError, attempt, connector::NotingConnector};
use crate::{http_client::USER_AGENT, request_id::RequestId, settings::ImgwireSettings};

/// The path at which tokens are created.
pub(super) const TOKEN_PATH: &str = "/api/v1/images/token";

/// How many connections a worker has at most.
const MAX_CONNECTIONS: usize = 1024;

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The first wait between two attempts; the next ones double, and each is jittered.
const FIRST_WAIT: Duration = Duration::from_millis(100);

const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-environment-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The request that a token is for: for the log, and the trace it belongs to (W3C Trace Context), which is
/// passed on as it came.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The request's id.
    pub request_id: RequestId,
    /// `traceparent`
    pub parent: Option<HeaderValue>,
    /// `tracestate`
    pub state: Option<HeaderValue>,
}

/// Asks Imgwire for upload tokens.
pub struct Client {
    pooled: awc::Client,
    /// Opens a connection for every request.
    fresh: awc::Client,
    url: String,
    authorization: HeaderValue,
    environment_id: Option<HeaderValue>,
    timeout: Duration,
    deadline: Duration,
    waits: ExponentialBuilder,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// Builds the client of the running worker.
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        api_key: &SecretString,
        tls: &Arc<ClientConfig>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let timeout = settings.timeout.get();
        let bearer = format!("Bearer {}", api_key.expose_secret());
        let mut authorization =
            HeaderValue::from_str(&bearer).expect("a key is visible ASCII, as the settings check");
        authorization.set_sensitive(true);
        let environment_id = settings.environment_id.as_ref().map(|id| {
            HeaderValue::from_str(id.as_str())
                .expect("an environment's id is visible ASCII, as the settings check")
        });
        Self {
            pooled: http_client(tls, KEEP_ALIVE, timeout),
            fresh: http_client(tls, Duration::ZERO, timeout),
            url: format!("{}{TOKEN_PATH}", settings.base_url.as_str()),
            authorization,
            environment_id,
            timeout,
            deadline: settings.deadline.get(),
            waits: ExponentialBuilder::new()
                .with_min_delay(FIRST_WAIT)
                .with_max_times(settings.retries.get())
                .with_jitter(),
            clock,
        }
    }

    /// Creates a token: as many attempts as the settings allow, all within the deadline. A kept connection
    /// that Imgwire closed meanwhile costs no attempt: its request goes out again on a fresh one.
    pub async fn create_token(&self, caller: &Caller) -> Creation {
        let started = self.clock.elapsed();
        let took = || self.clock.elapsed().saturating_sub(started);
        let mut waits = self.waits.build();
        let mut attempts = 0;
        let result = loop {
            let left = self.deadline.saturating_sub(took());
            if left.is_zero() {
                break Err(ImgwireError::Timeout);
            }
            attempts += 1;
            let timeout = left.min(self.timeout);
            let mut attempt =
                attempt::run(self.request(&self.pooled, caller), timeout, &*self.clock).await;
            if attempt.was_stale {
                tracing::debug!("a kept connection was closed; trying a fresh one");
                let left = self.deadline.saturating_sub(took());
                let timeout = left.min(self.timeout);
                attempt =
                    attempt::run(self.request(&self.fresh, caller), timeout, &*self.clock).await;
            }
            let error = match attempt.result {
                Ok(token) => break Ok(token),
                Err(error) => error,
            };
            tracing::warn!(
                request_id = caller.request_id.as_str(),
                attempt = attempts,
                error = %error,
                status = match error { ImgwireError::Refused { status, .. } => Some(status), _ => None },
                elapsed_ms = took().as_millis() as u64,
                "creating a token failed"
            );
            if !error.is_transient() {
                break Err(error);
            }
            let Some(wait) = waits.next() else {
                break Err(error);
            };
            let asked = match error {
                ImgwireError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let wait = wait.max(asked);
            if took() + wait >= self.deadline {
                break Err(error);
            }
            tokio::time::sleep(wait).await;
        };
        Creation {
            result,
            attempts,
            took: took(),
        }
    }

    fn request(&self, client: &awc::Client, caller: &Caller) -> awc::ClientRequest {
        let mut request = client
            .post(&self.url)
            .insert_header((header::AUTHORIZATION, self.authorization.clone()));
        if let Some(id) = &self.environment_id {
            request = request.insert_header((ENVIRONMENT_ID, id.clone()));
        }
        if let Some(parent) = &caller.parent {
            request = request.insert_header((TRACEPARENT, parent.clone()));
            if let Some(state) = &caller.state {
                request = request.insert_header((TRACESTATE, state.clone()));
            }
        }
        request
    }
}

fn http_client(
    tls: &Arc<ClientConfig>,
    keep_alive: Duration,
    connect_timeout: Duration,
) -> awc::Client {
    let noting = NotingConnector {
        tcp: actix_tls::connect::Connector::default().service(),
    };
    let connector = Connector::new()
        .connector(noting)
        .timeout(connect_timeout)
        .max_http_version(Version::HTTP_11)
        // After the version, whose choice forgets it.
        .rustls_0_23(tls.clone())
        .limit(MAX_CONNECTIONS)
        .conn_keep_alive(keep_alive);
    awc::Client::builder()
        .connector(connector)
        .disable_redirects()
        // Each attempt has its own.
        .disable_timeout()
        .add_default_header((header::USER_AGENT, USER_AGENT))
        .finish()
}
