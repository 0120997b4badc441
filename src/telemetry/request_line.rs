//! The id of a request, which is in the response and in all its log lines, and the log line of a request without a
//! decision: for the session, for an allowance, or rejected before the first policy.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    dev::ServiceRequest,
    http::{
        Method, StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
};
use policies::{
    Denial, IdentityName, ImageId, PolicyName, RoutePath, Subject, SubjectId, WorkspaceId,
};
use serde::Serialize;
use uuid::{Uuid, fmt::Hyphenated};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of an id that a client or proxy sends.
const MAX_ID_BYTES: usize = 128;

/// An id of visible ASCII characters.
#[derive(Clone, Debug, Serialize)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes a valid id from the request, or generates one. Later calls return the same id.
    pub fn assign(request: &ServiceRequest) -> Self {
        if let Some(id) = request.extensions().get::<Self>() {
            return id.clone();
        }
        let id = inbound(request.headers()).unwrap_or_else(Self::generate);
        request.extensions_mut().insert(id.clone());
        id
    }

    pub(crate) fn generate() -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut text);
        Self(text.into())
    }

    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let id = request.extensions().get::<Self>().cloned();
        id.unwrap_or_else(|| Self("".into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a request id is visible ASCII")
    }
}

fn inbound(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(X_REQUEST_ID);
    let text = values.next()?.to_str().ok()?;
    let is_valid = !text.is_empty()
        && text.len() <= MAX_ID_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte));
    (is_valid && values.next().is_none()).then(|| RequestId(text.into()))
}

/// The target of lines about malformed requests. The log limits them, because clients can cause them at will.
pub(crate) const REFUSED: &str = "refused";

/// The target of all other lines.
const ANSWERED: &str = "request";

/// The maximum length of a logged path or method.
const MAX_BYTES: usize = 200;

/// Fields of the log line that only the handler knows. They are an extension of the response.
#[derive(Default)]
pub(crate) struct LogFields {
    pub(crate) code: Option<&'static str>,
    pub(crate) denial: Option<Denial>,
    /// The reason of a failure of the gate, or what is wrong with the request.
    pub(crate) reason: Option<String>,
    pub(crate) subject: Option<(SubjectId, IdentityName)>,
    pub(crate) workspace: Option<WorkspaceId>,
    /// The image that the path names.
    pub(crate) image: Option<ImageId>,
    /// The policy that denies or cannot decide.
    pub(crate) policy: Option<PolicyName>,
    /// The number and the duration of the attempts at Imgwire.
    pub(crate) upstream: Option<(u32, Duration)>,
}

impl LogFields {
    /// Changes the fields of `response`.
    pub(crate) fn update(response: &mut HttpResponse, update: impl FnOnce(&mut Self)) {
        let mut extensions = response.extensions_mut();
        let mut fields = extensions.remove::<Self>().unwrap_or_default();
        update(&mut fields);
        extensions.insert(fields);
    }

    pub(crate) fn set_subject(response: &mut HttpResponse, subject: &Subject) {
        Self::update(response, |fields| {
            fields.subject = Some((subject.id.clone(), subject.identity.clone()));
        });
    }
}

/// Marks the response to a request that already has a decision line.
pub(crate) struct HasDecision;

/// The description of a request in its log line.
#[derive(Default)]
pub(crate) struct RequestLine<'a> {
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: Method,
    /// The route of the request, or the one whose allowance it reads.
    pub(crate) route: Option<RoutePath>,
    /// Without the query.
    pub(crate) path: Cow<'a, str>,
}

impl RequestLine<'_> {
    /// Writes the line. Only failures of the gate are at level ERROR. `status` is `None` if the client disconnected.
    pub(crate) fn write(&self, id: &RequestId, status: Option<StatusCode>, fields: &LogFields) {
        let code = fields.code;
        let denial = fields.denial.as_ref();
        let subject = fields.subject.as_ref();
        let identity = subject
            .map(|(_, identity)| identity)
            .or_else(|| denial.and_then(Denial::identity));
        let reason = denial.map(ToString::to_string);
        let reason = reason.as_deref().or(fields.reason.as_deref());
        let workspace = fields.workspace.as_ref();
        let image = fields.image.as_ref();
        let policy = fields.policy.as_ref();
        let upstream = fields.upstream;
        let token = denial.and_then(Denial::token);
        let reached = denial.and_then(Denial::reached);
        let retry_after = denial.and_then(Denial::retry_after);
        macro_rules! line {
            ($level:ident, $target:expr, $message:literal) => {
                tracing::$level!(
                    target: $target,
                    request_id = id.as_str(),
                    client = self.client.map(tracing::field::display),
                    method = truncated(self.method.as_str()),
                    route = self.route.as_ref().map(RoutePath::as_str),
                    path = truncated(&self.path),
                    status = status.map(|status| status.as_u16()),
                    code,
                    identity = identity.map(IdentityName::as_str),
                    subject = subject.map(|(subject, _)| subject.as_str()),
                    workspace = workspace.map(WorkspaceId::as_str),
                    image_id = image.map(ImageId::as_str),
                    policy = policy.map(PolicyName::as_str),
                    reason,
                    issuer = token.and_then(|token| token.issuer.as_deref()),
                    kid = token.and_then(|token| token.kid.as_deref()),
                    limit = reached.map(|reached| reached.limit),
                    burst = reached.and_then(|reached| reached.burst),
                    window = reached.map(|reached| reached.window.as_str()),
                    limit_key = reached.map(|reached| reached.key.as_str()),
                    retry_after = retry_after.map(seconds_to_wait),
                    upstream_attempts = upstream.map(|(attempts, _)| attempts),
                    upstream_ms = upstream.map(|(_, took)| took.as_micros() as f64 / 1000.0),
                    $message
                )
            };
        }
        match status {
            None => line!(info, ANSWERED, "client disconnected"),
            Some(status) if status.is_server_error() => line!(error, ANSWERED, "request failed"),
            Some(status) if is_malformed(status) => line!(info, REFUSED, "refused"),
            Some(_) => line!(info, ANSWERED, "request answered"),
        }
    }

    /// Writes the line of a preflight request, at level DEBUG because browsers send many of them.
    pub(crate) fn write_preflight(&self, id: &RequestId, status: StatusCode, fields: &LogFields) {
        tracing::debug!(
            target: ANSWERED,
            request_id = id.as_str(),
            client = self.client.map(tracing::field::display),
            method = truncated(self.method.as_str()),
            path = truncated(&self.path),
            status = status.as_u16(),
            code = fields.code,
            "preflight answered"
        );
    }
}

/// Rounds up, so that waiting that long is always enough.
#[must_use]
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// `Retry-After`: at least a second.
#[must_use]
pub(crate) fn seconds_to_wait(duration: Duration) -> u64 {
    whole_seconds(duration).max(1)
}

/// Whether `status` means that a request is malformed, regardless of its credentials.
fn is_malformed(status: StatusCode) -> bool {
    let depends_on_client = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !depends_on_client.contains(&status)
}

/// The part of a text of the client that is logged.
pub(super) fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

/// The method as OpenTelemetry names it: `_OTHER` if it is not a standard one.
pub(crate) fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or("_OTHER")
}
