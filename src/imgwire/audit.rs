//! Tries whether Imgwire works for the gate and whether the gate can be bypassed: for `doctor`, and for the audit of a
//! running gate.

mod cors;
mod origins;
mod probe;
mod response;
mod server_key;

use std::time::Duration;

use actix_web::http::{
    Method,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::future::join;
use policies::Clock;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use self::response::Response;
use super::error_body::ErrorBody;
use crate::{
    config::{
        ImgwireSettings,
        imgwire::{ClientKey, EnvironmentId},
        origin::OriginPattern,
    },
    outbound::{HttpClient, HttpError, OutboundRequest, Resend, clock_skew},
    telemetry::{Point, PointState},
};

const BASE_URL: &str = "imgwire.base_url";
const CLOCK: &str = "imgwire.clock";
const API_KEY: &str = "imgwire.api_key";
const BILLING: &str = "imgwire.billing";
const ENVIRONMENT: &str = "imgwire.environment_id";
const CORS_ORIGINS: &str = "imgwire.cors_origins";
/// The point on whether uploads need a token.
pub const CLIENT_KEY: &str = "imgwire.client_key";

const IMAGES: &str = "/api/v1/images/";

/// Limits of one call, whatever `[imgwire] timeout` says.
const MIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// The pause before a call is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(250);

const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-environment-id");

/// What the audit works with.
#[derive(Clone)]
pub struct Audit<'a> {
    pub settings: &'a ImgwireSettings,
    pub api_key: &'a SecretString,
    pub client_key: Option<&'a ClientKey>,
    /// Whether to try an upload without a token.
    pub probe: bool,
    /// `[server] allowed_origins`
    pub allowed_origins: &'a [OriginPattern],
    pub http: &'a HttpClient,
    pub clock: &'a dyn Clock,
}

/// Whose key authenticates a call.
#[derive(Clone, Copy)]
enum Key<'a> {
    Server,
    Client(&'a ClientKey),
}

/// Whether the points show that uploads need no token of this gate; `None` if they do not tell.
#[must_use]
pub fn bypass(points: &[Point]) -> Option<bool> {
    let point = points.iter().find(|point| point.part == CLIENT_KEY)?;
    match point.state {
        PointState::Ok => Some(false),
        PointState::Failed => Some(true),
        _ => None,
    }
}

impl Audit<'_> {
    /// Tries everything. It creates one upload token, which it does not use.
    pub async fn run(&self) -> Vec<Point> {
        let path = format!("{IMAGES}?limit=1");
        let listed = self.call_with_retry(Method::GET, &path, Key::Server).await;
        let base_url = Self::base_url(listed.as_ref());
        let listed = match listed {
            Ok(listed) if base_url.state == PointState::Ok => listed,
            _ => return after_failure(vec![base_url], BASE_URL, &[CLOCK, API_KEY]),
        };
        let api_key = self.api_key(&listed);
        let works = !api_key.is_failed();
        let mut points = vec![base_url, Self::clock(&listed), api_key];
        if !works {
            return after_failure(points, API_KEY, &[]);
        }
        // A host that Imgwire accepts uploads from.
        let mut host = None;
        let (token, cors) = join(self.token(), self.cors_origins()).await;
        points.extend(token);
        points.push(match cors {
            Ok(patterns) => {
                host = patterns.first().cloned();
                self.cors_point(&patterns)
            }
            Err(reason) => Point::unknown(
                CORS_ORIGINS,
                format!("cannot read the CORS origins: {reason}"),
                "look at CORS Origins of the environment in Imgwire's dashboard: it must list the hosts of your pages",
            ),
        });
        points.push(self.client_key(&listed, host.as_deref()).await);
        points
    }

    /// Calls Imgwire, and again if the first attempt fails in a way that may pass. Only for calls that may be repeated.
    async fn call_with_retry(
        &self,
        method: Method,
        path: &str,
        key: Key<'_>,
    ) -> Result<Response, HttpError> {
        let first = self.call(method.clone(), path, key, None).await;
        let may_pass = match &first {
            Ok(response) => response.status.is_server_error(),
            Err(error) => *error != HttpError::TooLarge,
        };
        if !may_pass {
            return first;
        }
        tokio::time::sleep(RETRY_DELAY).await;
        self.call(method, path, key, None).await
    }

    /// Calls Imgwire once.
    async fn call(
        &self,
        method: Method,
        path: &str,
        key: Key<'_>,
        body: Option<(&Value, Option<HeaderValue>)>,
    ) -> Result<Response, HttpError> {
        let (bearer, environment) = match key {
            Key::Server => (
                self.api_key.expose_secret(),
                self.settings.environment_id.as_ref(),
            ),
            Key::Client(key) => (key.as_str(), None),
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {bearer}"))
            .expect("the config checks that keys are visible ASCII");
        authorization.set_sensitive(true);
        let mut headers = vec![(header::AUTHORIZATION, authorization)];
        let environment = environment.map(EnvironmentId::as_str);
        headers.extend(environment.map(|id| {
            let id =
                HeaderValue::from_str(id).expect("the config checks that the id is visible ASCII");
            (ENVIRONMENT_ID, id)
        }));
        let mut bytes = Bytes::new();
        if let Some((body, origin)) = body {
            bytes = Bytes::from(body.to_string());
            let json = HeaderValue::from_static("application/json");
            headers.push((header::CONTENT_TYPE, json));
            headers.extend(origin.map(|origin| (header::ORIGIN, origin)));
        }
        let sent = self.clock.now();
        let response = self
            .http
            .send(OutboundRequest {
                method,
                url: &format!("{}{path}", self.settings.base_url.as_str()),
                headers,
                body: bytes,
                timeout: self.settings.timeout.get().clamp(MIN_TIMEOUT, MAX_TIMEOUT),
                max_response_bytes: MAX_RESPONSE_BYTES,
                resend: Resend::Unsafe,
            })
            .await?;
        let (status, body) = (response.status.as_u16(), &response.body);
        Ok(Response {
            skew: clock_skew(&response.headers, sent, self.clock.now()),
            error: if response.status.is_success() {
                ErrorBody::default()
            } else {
                ErrorBody::parse(status, body, self.api_key)
            },
            status: response.status,
            headers: response.headers,
            body: response.body,
        })
    }
}

/// Adds the points that cannot be tried because `cause` failed.
fn after_failure(mut points: Vec<Point>, cause: &str, also: &[&'static str]) -> Vec<Point> {
    let always = [BILLING, CORS_ORIGINS, CLIENT_KEY];
    points.extend(also.iter().copied().chain(always).map(|part| {
        let (message, remedy) = (format!("needs {cause}"), format!("fix {cause} first"));
        Point::not_tried(part, message, remedy)
    }));
    points
}
