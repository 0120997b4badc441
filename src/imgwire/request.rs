//! Requests to Imgwire, with the headers that all of them have.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::http::{
    Method, Uri,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use awc::{ClientRequest, FrozenClientRequest};
use rustls::ClientConfig;
use secrecy::ExposeSecret as _;

use super::{api_key::ApiKey, upstream::Upstream};
use crate::{
    config::{ImgwireSettings, imgwire::EnvironmentId},
    outbound::{PoolSettings, client, is_tls, plain},
    telemetry::RequestId,
};

const TOKEN_PATH: &str = "/api/v1/images/token";
const UPLOAD_PATH: &str = "/api/v1/images/standard_upload";

/// Per worker.
const MAX_CONNECTIONS: usize = 1024;

const KEEP_ALIVE: Duration = Duration::from_secs(60);

const ENVIRONMENT_ID: HeaderName = HeaderName::from_static("x-environment-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The id of the request that needs the call, for the log, and the W3C trace context that Imgwire receives.
#[derive(Clone, Debug)]
pub struct TraceContext {
    pub request_id: RequestId,
    pub parent: Option<HeaderValue>,
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// The headers for Imgwire, if there is a trace.
    pub(super) fn headers(&self) -> Option<HeaderMap> {
        let parent = self.parent.clone()?;
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, parent);
        if let Some(state) = self.state.clone() {
            headers.insert(TRACESTATE, state);
        }
        Some(headers)
    }
}

/// What all requests of a worker have in common, besides the API key.
pub(super) struct Requests {
    client: awc::Client,
    /// Without a slash at its end.
    base_url: String,
    host: HeaderValue,
    environment_id: Option<EnvironmentId>,
}

/// Requests with an API key.
pub(super) struct SignedRequests {
    /// Built once for each API key, because requests for a token differ only in their trace headers.
    pub(super) token: FrozenClientRequest,
    /// The same for the creation of an upload, but for its body.
    pub(super) upload: FrozenClientRequest,
    requests: Rc<Requests>,
    authorization: HeaderValue,
    /// Also to keep it out of the log.
    pub(super) key: Arc<ApiKey>,
}

impl Requests {
    pub(super) fn new(
        settings: &ImgwireSettings,
        tls: &Arc<ClientConfig>,
        upstream: &Upstream,
    ) -> Rc<Self> {
        let url = Uri::try_from(settings.base_url.as_str())
            .expect("the config checks that a base URL is a URL");
        let pool = PoolSettings {
            limit: MAX_CONNECTIONS,
            keep_alive: KEEP_ALIVE,
            connect_timeout: settings.timeout.get(),
        };
        let client = client(&upstream.peer, is_tls(&url).then_some(tls), &pool);
        let (url, host) = plain(&url).expect("the config checks that a base URL has a host");
        Rc::new(Self {
            client,
            base_url: url.to_string().trim_end_matches('/').to_owned(),
            host,
            environment_id: settings.environment_id.clone(),
        })
    }

    pub(super) fn sign(self: &Rc<Self>, key: &Arc<ApiKey>) -> SignedRequests {
        let bearer = format!("Bearer {}", key.secret.expose_secret());
        let mut authorization = HeaderValue::from_str(&bearer)
            .expect("the config checks that the key is visible ASCII");
        authorization.set_sensitive(true);
        let freeze = |request: ClientRequest| {
            let frozen = request.freeze();
            frozen.expect("the config checks that a base URL has a scheme and a host")
        };
        let start = |path| self.start(Method::POST, path, &authorization);
        let json = (header::CONTENT_TYPE, "application/json");
        SignedRequests {
            token: freeze(start(TOKEN_PATH)),
            upload: freeze(start(UPLOAD_PATH).insert_header(json)),
            requests: self.clone(),
            authorization,
            key: key.clone(),
        }
    }

    fn start(&self, method: Method, path: &str, authorization: &HeaderValue) -> ClientRequest {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base_url))
            .insert_header((header::HOST, self.host.clone()))
            .insert_header((header::AUTHORIZATION, authorization.clone()));
        if let Some(id) = &self.environment_id {
            let id = HeaderValue::from_str(id.as_str())
                .expect("the config checks that the id is visible ASCII");
            request = request.insert_header((ENVIRONMENT_ID, id));
        }
        request
    }
}

impl SignedRequests {
    /// A request for a path, with the headers of the trace context.
    pub(super) fn start(
        &self,
        method: Method,
        path: &str,
        trace: Option<HeaderMap>,
    ) -> ClientRequest {
        let mut request = self.requests.start(method, path, &self.authorization);
        for header in trace.into_iter().flatten() {
            request = request.insert_header(header);
        }
        request
    }
}
