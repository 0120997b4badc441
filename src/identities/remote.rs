//! `kind = "remote"`: the app's own session lookup. The gate sends a cookie or a header to the app, which returns the
//! subject.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::http::{
    Method,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{Denial, Interval, Subject, SubjectId, id_text};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    auth_request::AuthRequest,
    claims::ClaimFilter,
    constant_headers::ConstantHeaders,
    cookies::{self, CookieSource},
    issuer::SubjectPrefix,
    kind::{Authentication, Build, Identity, IdentityKind},
    profile::{CacheKind, Place, Profile},
    request_view::{TokenSource, default_ambient, find_header},
    section::Section,
    service_lookup::{MADE_UP, MAX_RESPONSE_BYTES, ServiceLookup, default_timeout},
};
use crate::{
    config::ServiceUrl,
    outbound::{
        InvalidResponse, OutboundRequest, Resend,
        digest::{Digest, digest},
        parse_json,
        single_flight::{ServiceFault, ServiceResult},
        wrong_type,
    },
    telemetry::Point,
};

/// The app's own session lookup.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteSettings {
    /// The URL that the gate calls with GET.
    url: ServiceUrl,
    /// Allows the gate to send the cookies and headers over plain http to other machines.
    #[serde(default)]
    insecure_http: bool,
    /// The cookies and headers that the gate forwards byte for byte, `"cookie:NAME"`, `"cookie:NAME*"` for a cookie that
    /// may be in chunks (`NAME.0`, `NAME.1`), or `"header:NAME"`. A request with none of them is not signed in.
    #[schemars(length(min = 1))]
    forward: Vec<TokenSource>,
    /// Other headers that the gate sends, for example `{ "X-Forwarded-Proto" = "https" }`. Default: none.
    #[serde(default)]
    headers: ConstantHeaders,
    /// Whether a browser may send the headers by itself, or a proxy may derive them from what a browser sends. If so, the
    /// gate accepts them only from its own pages and the allowed origins. This check always applies to cookies, and never
    /// to `Authorization`.
    #[serde(default = "default_ambient")]
    ambient: bool,
    /// The JSON Pointer (RFC 6901) of the subject's id in the response. If it is missing or null, the user is not signed
    /// in.
    subject: Pointer,
    /// The prefix of the subject's id, so that it differs from equal ids of another identity. Default: none.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// The JSON Pointers of claims, by the claim's name. Default: none.
    #[serde(default)]
    claims: BTreeMap<String, Pointer>,
    /// How long a response is cached. Default: none; the gate asks for every request.
    #[serde(default)]
    cache: Option<Interval>,
    /// The timeout of the call. Default: `"2s"`.
    #[serde(default = "default_timeout")]
    timeout: Interval,
}

impl IdentityKind for RemoteSettings {
    const NAME: &'static str = "remote";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: self.forward.iter().map(Place::from).collect(),
            subject_prefix: Some(&self.subject_prefix),
            cache: Some(CacheKind::Responses),
            ..Profile::default()
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        section.check_literal_prefix(&self.subject_prefix);
        section.check_https("url", &self.url, self.insecure_http);
        section.check_ambient(self.ambient, &self.forward);
        if self.forward.is_empty() {
            section.fault("forward", "must name at least one cookie or header");
        } else if self.forward.contains(&TokenSource::Bearer) {
            let message = "write \"header:authorization\" for the bearer token";
            section.fault("forward", message);
        }
        let headers = self.headers.resolve(section, &self.forward);
        Some(Box::new(move |context| {
            Arc::new(Remote {
                headers: headers.clone(),
                claim_filter: context.claim_filter().clone(),
                lookup: ServiceLookup::new(self.cache, context),
                settings: self.clone(),
            })
        }))
    }
}

/// The status of Laravel for a session that has expired.
const LOGIN_TIMEOUT: u16 = 419;

/// Asks the app.
struct Remote {
    settings: Arc<RemoteSettings>,
    /// The constant ones.
    headers: Vec<(HeaderName, HeaderValue)>,
    claim_filter: ClaimFilter,
    lookup: ServiceLookup<Arc<Subject>>,
}

/// The credentials of a request that the app receives.
#[derive(Default)]
struct ForwardedCredentials<'a> {
    /// In the order of the request.
    cookies: Vec<(&'a str, &'a [u8])>,
    headers: Vec<(&'a HeaderName, &'a [u8])>,
    /// Whether a browser may have sent any of them by itself.
    is_ambient: bool,
}

impl Identity for Remote {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(async move {
            let credentials = self.find_credentials(request.view().headers())?;
            if credentials.is_empty() {
                return Ok(None);
            }
            if credentials.is_ambient {
                request.check_origin()?;
            }
            let key = credentials.digest();
            let subject = self.lookup.get(
                &key,
                &request.failures,
                self.ask(&credentials),
                Result::is_err,
            );
            Ok(Some(subject.await?))
        })
    }

    /// Asks about credentials that cannot be valid.
    fn try_out(&self) -> LocalBoxFuture<'_, Vec<Point>> {
        Box::pin(async {
            let mut credentials = ForwardedCredentials::default();
            for source in &self.settings.forward {
                match source {
                    TokenSource::Cookie(cookie) => credentials
                        .cookies
                        .push((cookie.name(), MADE_UP.as_bytes())),
                    TokenSource::Header(name) => {
                        credentials.headers.push((name, MADE_UP.as_bytes()))
                    }
                    TokenSource::Bearer => {}
                }
            }
            vec![match self.ask(&credentials).await {
                Ok(Err(Denial::SignedOut(_))) => {
                    Point::ok("", "says that a made-up credential is not signed in")
                }
                Ok(_) => Point::failed(
                    "",
                    "says that a made-up credential belongs to a user",
                    "correct `url` and `subject`: the app must identify a user only by a valid session",
                ),
                Err(fault) => Point::failed(
                    "",
                    fault.to_string(),
                    "correct `url`: the app must respond with 401, 403, 404, 419, 204, or with 200 and JSON; if it is right, \
                     check the network to it and `[outbound] ca`",
                ),
            }]
        })
    }
}

impl Remote {
    fn find_credentials<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> Result<ForwardedCredentials<'a>, Denial> {
        let RemoteSettings {
            forward, ambient, ..
        } = &*self.settings;
        let is_cookie = |source: &'a TokenSource| match source {
            TokenSource::Cookie(cookie) => Some(cookie),
            TokenSource::Bearer | TokenSource::Header(_) => None,
        };
        let sources: Vec<&CookieSource> = forward.iter().filter_map(is_cookie).collect();
        let cookies = cookies::select(headers, &sources)?;
        let mut credentials = ForwardedCredentials {
            is_ambient: !cookies.is_empty(),
            cookies,
            headers: Vec::new(),
        };
        for source in forward {
            if let TokenSource::Header(name) = source
                && let Some(value) = find_header(headers, name)?
            {
                credentials.is_ambient |= source.is_ambient(value, *ambient);
                credentials.headers.push((name, value));
            }
        }
        Ok(credentials)
    }

    async fn ask(
        &self,
        credentials: &ForwardedCredentials<'_>,
    ) -> ServiceResult<Result<Arc<Subject>, Denial>> {
        let forwarded = credentials.headers().map_err(|_| {
            ServiceFault::InvalidRequest("a value has characters that are not allowed in a header")
        })?;
        let outgoing = OutboundRequest {
            method: Method::GET,
            url: self.settings.url.as_str(),
            headers: self.headers.iter().cloned().chain(forwarded).collect(),
            body: Bytes::new(),
            timeout: self.settings.timeout.get(),
            max_response_bytes: MAX_RESPONSE_BYTES,
            resend: Resend::Safe,
        };
        let response = self.lookup.outbound.http.send(outgoing).await?;
        let signed_out = |reason: String| Ok(Err(Denial::SignedOut(reason)));
        let status = response.status.as_u16();
        match status {
            200 if response.body.trim_ascii().is_empty() => {
                return signed_out("the app's answer is empty".to_owned());
            }
            200 => {}
            204 | 401 | 403 | 404 | LOGIN_TIMEOUT => {
                return signed_out(format!("the app answered {status}"));
            }
            _ => return Err(response.unexpected_status()),
        }
        let body = parse_json(&response.body)?;
        if !matches!(body, Value::Object(_) | Value::Null) {
            return Err(wrong_type("/", "an object or null", &body).into());
        }
        let subject = &self.settings.subject;
        let id = match subject.resolve(&body) {
            None | Some(Value::Null) => {
                return signed_out(format!("the app's answer has no value at {}", subject.0));
            }
            Some(id) => subject_id(id).ok_or_else(|| wrong_type("subject", "an id", id))?,
        };
        let id = self.settings.subject_prefix.apply(id.as_str(), None);
        let id = id.map_err(|_| InvalidResponse::LongId)?;
        let claims = self.settings.claims.iter().filter_map(|(name, pointer)| {
            let value = pointer.resolve(&body)?;
            Some((name.clone(), value.clone()))
        });
        let claims = match self.claim_filter.apply(&claims.collect()) {
            Ok(claims) => claims,
            Err(reason) => return Ok(Err(Denial::InvalidCredentials(reason))),
        };
        Ok(Ok(Arc::new(Subject {
            id,
            identity: self.lookup.identity.clone(),
            session: false,
            claims,
            expires_at: None,
        })))
    }
}

impl ForwardedCredentials<'_> {
    fn is_empty(&self) -> bool {
        self.cookies.is_empty() && self.headers.is_empty()
    }

    fn digest(&self) -> Digest {
        let cookies = self
            .cookies
            .iter()
            .flat_map(|(name, value)| [b"cookie".as_slice(), name.as_bytes(), *value]);
        let headers = self
            .headers
            .iter()
            .flat_map(|(name, value)| [b"header".as_slice(), name.as_str().as_bytes(), *value]);
        digest(cookies.chain(headers))
    }

    /// Every value is what the client sent, byte for byte.
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, header::InvalidHeaderValue> {
        let cookies = self
            .cookies
            .iter()
            .map(|(name, value)| [name.as_bytes(), b"=", *value].concat());
        let cookies = cookies.collect::<Vec<_>>().join(b"; ".as_slice());
        let mut headers = self.headers.clone();
        if !cookies.is_empty() {
            headers.push((&header::COOKIE, cookies.as_slice()));
        }
        headers
            .into_iter()
            .map(|(name, value)| Ok((name.clone(), HeaderValue::from_bytes(value)?)))
            .collect()
    }
}

fn subject_id(value: &Value) -> Option<SubjectId> {
    SubjectId::parse(&id_text(value)?).ok()
}

/// A JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "a JSON Pointer", "examples" = ["/user/id"]))]
struct Pointer(String);

impl Pointer {
    fn resolve<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        value.pointer(&self.0)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let escapes_are_whole = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if (text.is_empty() || text.starts_with('/')) && escapes_are_whole {
            Ok(Self(text))
        } else {
            Err(format!(
                "`{text}` is not a JSON Pointer; write for example \"/user/id\""
            ))
        }
    }
}
