//! Adds the request id, `no-store` and the headers of cross-origin resource sharing to every response, and the API's
//! error body to errors of the framework.

use std::{mem, sync::Arc, time::Duration};

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
    middleware::Next,
};
use policies::RoutePath;

use super::{
    context::{Gate, SESSION_PATH, line, matched_path},
    error::ApiError,
};
use crate::{
    config::origin::{Origin, OriginPattern, Trust},
    telemetry::{HasDecision, LogFields, RequestId, X_REQUEST_ID, known_method},
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-total-count, x-page, x-limit, \
     x-prev-page, x-next-page",
);
const VARY: HeaderValue = HeaderValue::from_static("origin");
const VARY_OF_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
const TRUE: HeaderValue = HeaderValue::from_static("true");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For web pages. A draining gate waits for these requests.
    Public,
    /// For operators.
    Management,
}

/// Wraps all handlers and middleware, so that errors of middleware also have the API's body.
pub async fn envelope<B: MessageBody + 'static>(
    gate: Arc<Gate>,
    listener: Listener,
    cors: Cors,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let is_public = listener == Listener::Public;
    let _arrival = is_public.then(|| gate.in_flight.arrive());
    let measurement = Measurement::start(gate, is_public, &request);
    fit_headers(request.head_mut().headers_mut());
    let id = RequestId::assign(&request);
    let grant = cors.grant(request.headers());
    let is_preflight = grant.is_preflight(&request);
    // Describe the request before a middleware consumes it.
    let if_failed = may_fail(&request).then(|| line(request.request(), request.path().to_owned()));
    let result = if is_preflight {
        let granted = grant.preflight(request.headers());
        let response = granted.unwrap_or_else(|| {
            let reason = "the origin is not in `allowed_origins`";
            ApiError::BadRequest(reason.into()).response(&id)
        });
        Ok(request.into_response(response).map_into_right_body())
    } else {
        next.call(request)
            .await
            .map(|response| unify_error(response, &id))
    };
    let mut response = match result {
        Ok(response) => response,
        Err(error) => {
            let status = error.as_response_error().status_code();
            let fields = LogFields {
                code: Some(ApiError::from_status(status).describe().1),
                reason: Some(error.to_string()),
                ..LogFields::default()
            };
            measurement.finish(status);
            let line = if_failed.unwrap_or_default();
            line.write(&id, Some(status), &fields);
            return Err(Failure { status, id, grant }.into());
        }
    };
    if measurement.gate.in_flight.is_draining() {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    complete(response.headers_mut(), &id, &grant);
    let status = response.status();
    measurement.finish(status);
    // Requests on the management listener are logged only if they fail.
    if is_public || status.is_client_error() || status.is_server_error() {
        log(&response, &id, is_preflight);
    }
    Ok(response)
}

/// Measures a request of the public listener, until it has a response or is dropped because its client disconnected.
/// Probes and scrapes on the management listener would distort the durations.
struct Measurement {
    gate: Arc<Gate>,
    is_public: bool,
    started: Duration,
    method: &'static str,
    route: Option<RoutePath>,
    status: Option<StatusCode>,
}

impl Measurement {
    fn start(gate: Arc<Gate>, is_public: bool, request: &ServiceRequest) -> Self {
        Self {
            started: gate.clock.elapsed(),
            method: known_method(request.method()),
            route: is_public
                .then(|| matched_path(&gate, request.path()))
                .flatten(),
            status: None,
            is_public,
            gate,
        }
    }

    fn finish(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        if !self.is_public {
            return;
        }
        let took = self.gate.clock.elapsed().saturating_sub(self.started);
        let (metrics, route) = (&self.gate.metrics, self.route.take());
        metrics
            .http_server_request_duration_seconds(self.method, route, self.status)
            .observe(took.as_secs_f64());
    }
}

/// Whether middleware can fail. Only the session middleware can, when it saves a session.
fn may_fail(request: &ServiceRequest) -> bool {
    request.headers().contains_key(header::COOKIE) || request.path() == SESSION_PATH
}

/// Logs a request unless it has a decision line.
fn log<B>(response: &ServiceResponse<B>, id: &RequestId, is_preflight: bool) {
    let extensions = response.response().extensions();
    if extensions.contains::<HasDecision>() {
        return;
    }
    let default = LogFields::default();
    let request = response.request();
    let line = line(request, request.path());
    let (status, fields) = (response.status(), extensions.get().unwrap_or(&default));
    if is_preflight {
        line.write_preflight(id, status, fields);
    } else {
        line.write(id, Some(status), fields);
    }
}

fn complete(headers: &mut HeaderMap, id: &RequestId, grant: &Grant) {
    headers.insert(X_REQUEST_ID, id.header_value());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    grant.apply(headers);
}

/// Moves the headers of a request into a smaller map if they are few. The framework's map has a capacity of 28 headers
/// and takes 7 kB while a request waits for Imgwire.
fn fit_headers(headers: &mut HeaderMap) {
    let names = headers.len_keys();
    if headers.capacity() < 4 * names {
        return;
    }
    let mut fitting = HeaderMap::with_capacity(names);
    for (name, value) in mem::take(headers) {
        fitting.append(name, value);
    }
    *headers = fitting;
}

/// Replaces the body of an error of the framework by the API's error body. Keeps the headers.
fn unify_error<B: MessageBody>(
    response: ServiceResponse<B>,
    id: &RequestId,
) -> ServiceResponse<EitherBody<B>> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if !is_error || content_type.is_some_and(|value| value.as_bytes() == b"application/json") {
        return response.map_into_left_body();
    }
    let (request, response) = response.into_parts();
    let mut unified = ApiError::from_status(status).response(id);
    for (name, value) in response.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            unified.headers_mut().append(name.clone(), value.clone());
        }
    }
    ServiceResponse::new(request, unified).map_into_right_body()
}

#[derive(Debug, thiserror::Error)]
#[error("middleware failed with status {status}")]
struct Failure {
    status: StatusCode,
    id: RequestId,
    grant: Grant,
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = ApiError::from_status(self.status).response(&self.id);
        complete(response.headers_mut(), &self.id, &self.grant);
        response
    }
}

/// Which pages of other origins may read responses.
#[derive(Clone, Default)]
pub struct Cors {
    allowed_origins: Arc<[OriginPattern]>,
}

impl Cors {
    #[must_use]
    pub fn new(allowed_origins: &[OriginPattern]) -> Self {
        Self {
            allowed_origins: allowed_origins.into(),
        }
    }

    fn grant(&self, request: &HeaderMap) -> Grant {
        if self.allowed_origins.is_empty() {
            return Grant::Disabled;
        }
        let mut values = request.get_all(header::ORIGIN);
        let (Some(value), None) = (values.next(), values.next()) else {
            return Grant::Nothing;
        };
        let origin = value.to_str().ok().and_then(Origin::parse);
        let trust = origin.and_then(|origin| {
            let patterns = self.allowed_origins.iter();
            patterns.filter_map(|pattern| pattern.trust(&origin)).max()
        });
        trust.map_or(Grant::Nothing, |trust| Grant::To(value.clone(), trust))
    }
}

/// The responses that a page may read.
#[derive(Clone, Debug)]
enum Grant {
    /// `allowed_origins` is empty, so responses do not depend on the origin.
    Disabled,
    Nothing,
    /// All responses to this origin; with [`Trust::Credentials`], also those to requests with cookies.
    To(HeaderValue, Trust),
}

impl Grant {
    /// Adds the headers that let the page read a response.
    fn apply(&self, response: &mut HeaderMap) {
        if !matches!(self, Self::Disabled) {
            response.append(header::VARY, VARY);
        }
        if let Self::To(origin, trust) = self {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            if *trust == Trust::Credentials {
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
        }
    }

    /// Whether this is a preflight request that the gate answers.
    fn is_preflight(&self, request: &ServiceRequest) -> bool {
        !matches!(self, Self::Disabled)
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ORIGIN)
            && request
                .headers()
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The response to a preflight request, which allows any header. `None` if the origin is not allowed.
    fn preflight(&self, request: &HeaderMap) -> Option<HttpResponse> {
        let Self::To(..) = self else {
            return None;
        };
        let mut response = HttpResponse::Ok();
        response
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE))
            .insert_header((header::VARY, VARY_OF_PREFLIGHT));
        if let Some(wanted) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
        }
        Some(response.finish())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn headers(count: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        for number in 0..count {
            let name = HeaderName::try_from(format!("x-{number}")).expect("the name is valid");
            headers.append(name.clone(), HeaderValue::from(number));
            headers.append(name, HeaderValue::from_static("again"));
        }
        headers
    }

    #[test]
    fn a_few_headers_are_moved_to_a_small_map_without_loss() {
        for count in 0..20 {
            let mut fitting = headers(count);
            let capacity = fitting.capacity();
            fit_headers(&mut fitting);
            if count < 8 {
                assert!(fitting.capacity() < capacity / 3, "{count}");
            } else {
                assert_eq!(fitting.capacity(), capacity, "{count}");
            }
            assert_eq!(fitting.len(), 2 * count);
            for number in 0..count {
                let name = format!("x-{number}");
                let values: Vec<_> = fitting.get_all(name.as_str()).collect();
                assert_eq!(values, [&number.to_string(), "again"]);
            }
        }
    }
}
