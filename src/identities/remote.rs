//! `kind = "remote"`: the app's own session lookup. The app is asked who the bearer of a cookie or a header is.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use policies::{Denial, Fault, IdentityName, Interval, Presented, Subject, SubjectId};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    case::Case,
    claims::KeptClaims,
    credential::{self, Found},
    credential::{TokenSource, default_ambient},
    cross_site::is_sent_by_itself,
    issuer::SubjectPrefix,
    kind::{Build, Identity, IdentityKind, Judgement, fault},
    limits::Attempt,
    profile::{CacheKind, Place, Profile},
    request_view::PresentedCredentials,
    section::Section,
};
use crate::{
    config::ServiceUrl,
    outbound::{
        InvalidResponse, Outbound, OutboundRequest, Resend,
        digest::{Digest, digest},
        parse_json,
        single_flight::{ServiceFault, ServiceResult, SingleFlightCache},
        wrong_type,
    },
    telemetry::CallResult,
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The app's own session lookup.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteSettings {
    /// What is asked, by GET.
    url: ServiceUrl,
    /// Lets the cookies and headers travel over plain http to other machines.
    #[serde(default)]
    insecure_http: bool,
    /// What of the request is passed on, `"cookie:NAME"` or `"header:NAME"`; nothing else is. A request with
    /// none of them is not signed in.
    #[schemars(length(min = 1))]
    forward: Vec<TokenSource>,
    /// Whether a browser may send its headers by itself, or a proxy may derive them from what a browser sends: then
    /// they are accepted from the gate's own pages and the allowed origins only. `Authorization` is never checked for
    /// this, and cookies always are.
    #[serde(default = "default_ambient")]
    ambient: bool,
    /// Where the answer has the subject's id (RFC 6901); absent or null: not signed in.
    subject: Pointer,
    /// What the subject's id begins with, so that it differs from equal ids of another identity.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// Where it has claims, by the claim's name.
    #[serde(default)]
    claims: BTreeMap<String, Pointer>,
    /// How long an answer is remembered; left out: not at all.
    #[serde(default)]
    cache: Option<Interval>,
    /// How long the app may take.
    #[serde(default = "default_timeout")]
    timeout: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
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
        section.check_literal(&self.subject_prefix);
        section.check_private("url", &self.url, self.insecure_http);
        section.check_ambient(self.ambient, &self.forward);
        if self.forward.is_empty() {
            section.fault("forward", "must name at least one cookie or header");
        } else if self.forward.contains(&TokenSource::Bearer) {
            let message = "write \"header:authorization\" for the bearer token";
            section.fault("forward", message);
        }
        Some(Box::new(move |context| {
            let outbound = context.outbound;
            let cache = self.cache.map(Interval::get);
            Arc::new(Remote {
                name: context.name.clone(),
                kept: context.kept.clone(),
                answers: SingleFlightCache::new(cache, Result::is_err, outbound),
                outbound: outbound.clone(),
                settings: self.clone(),
            })
        }))
    }
}

/// Asks the app.
struct Remote {
    name: IdentityName,
    settings: Arc<RemoteSettings>,
    kept: KeptClaims,
    answers: SingleFlightCache<Result<Arc<Subject>, Denial>>,
    outbound: Outbound,
}

/// What of a request the app is shown.
struct Shown<'a> {
    cookies: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a HeaderName, &'a str)>,
    /// Whether a browser may have sent any of it by itself.
    is_ambient: bool,
}

impl Identity for Remote {
    /// Shows the app what the config names of the request. A request that has nothing of it is nobody's.
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a> {
        let shown = match self.shown(case.presented()) {
            Ok(shown) if shown.is_empty() => return Presented::Nothing.into(),
            Ok(shown) => shown,
            Err(reason) => return Denial::InvalidCredentials(reason.to_owned()).into(),
        };
        if shown.is_ambient
            && let Err(denial) = case.check_origin()
        {
            return denial.into();
        }
        Judgement::Later(Box::pin(self.ask_about(shown, &case.attempt)))
    }
}

impl Remote {
    async fn ask_about(&self, shown: Shown<'_>, attempt: &Attempt<'_>) -> Result<Presented, Fault> {
        let ask = async {
            let call = attempt.begin_call().await?;
            let answer = self.ask(&shown).await;
            call.end(matches!(answer, Ok(Err(_))));
            Ok(answer)
        };
        let answer = match self.answers.get_or_refuse(&shown.digest(), ask).await {
            Ok(answer) => answer.map_err(|error| fault(&self.name, error))?,
            Err(denial) => return Ok(Presented::Refused(denial)),
        };
        Ok(answer.map_or_else(Presented::Refused, Presented::Subject))
    }

    fn shown<'a>(
        &'a self,
        presented: &'a dyn PresentedCredentials,
    ) -> Result<Shown<'a>, &'static str> {
        let mut shown = Shown {
            cookies: Vec::new(),
            headers: Vec::new(),
            is_ambient: false,
        };
        for source in &self.settings.forward {
            let value = match credential::find(presented, source) {
                Found::Nothing => continue,
                Found::Unusable(reason) => return Err(reason),
                Found::One(value) => value,
            };
            shown.is_ambient |= is_sent_by_itself(source, value, self.settings.ambient);
            match source {
                TokenSource::Cookie(name) => shown.cookies.push((name.as_str(), value)),
                TokenSource::Header(name) => shown.headers.push((name, value)),
                // The config does not allow it here.
                TokenSource::Bearer => {}
            }
        }
        Ok(shown)
    }

    async fn ask(&self, shown: &Shown<'_>) -> ServiceResult<Result<Arc<Subject>, Denial>> {
        let answer = self.look_up(shown).await;
        let (metrics, result) = (&self.outbound.metrics, CallResult::of(&answer));
        metrics.identity_calls(self.name.clone(), result).inc();
        answer
    }

    async fn look_up(&self, shown: &Shown<'_>) -> ServiceResult<Result<Arc<Subject>, Denial>> {
        let outgoing = OutboundRequest {
            method: Method::GET,
            url: self.settings.url.as_str(),
            headers: shown
                .headers()
                .map_err(|_| ServiceFault::InvalidRequest("a value cannot be sent in a header"))?,
            body: Bytes::new(),
            timeout: self.settings.timeout.get(),
            max_response_bytes: MAX_ANSWER_BYTES,
            resend: Resend::Safe,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Ok(Err(Denial::NotSignedIn));
            }
            status => return Err(ServiceFault::Status(status.as_u16())),
        }
        let answer = parse_json(&answer.body)?;
        if !matches!(answer, Value::Object(_) | Value::Null) {
            return Err(wrong_type("/", "an object or null", &answer).into());
        }
        let id = match self.settings.subject.of(&answer) {
            None | Some(Value::Null) => return Ok(Err(Denial::NotSignedIn)),
            Some(id) => subject_id(id).ok_or_else(|| wrong_type("subject", "an id", id))?,
        };
        let id = self.settings.subject_prefix.apply(id.as_str(), None);
        let id = id.map_err(|_| InvalidResponse::LongId)?;
        let claims = self.settings.claims.iter().filter_map(|(name, pointer)| {
            let value = pointer.of(&answer)?;
            Some((name.clone(), value.clone()))
        });
        let claims = match self.kept.of(&claims.collect()) {
            Ok(claims) => claims,
            Err(reason) => return Ok(Err(Denial::InvalidCredentials(reason))),
        };
        Ok(Ok(Arc::new(Subject {
            id,
            identity: self.name.clone(),
            session: false,
            claims,
            expires_at: None,
        })))
    }
}

impl Shown<'_> {
    fn is_empty(&self) -> bool {
        self.cookies.is_empty() && self.headers.is_empty()
    }

    fn digest(&self) -> Digest {
        let cookies = self
            .cookies
            .iter()
            .flat_map(|(name, value)| ["cookie", name, value]);
        let headers = self.headers.iter();
        digest(cookies.chain(headers.flat_map(|(name, value)| ["header", name.as_str(), value])))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, header::InvalidHeaderValue> {
        let mut headers = self
            .headers
            .iter()
            .map(|(name, value)| Ok(((*name).clone(), HeaderValue::from_str(value)?)))
            .collect::<Result<Vec<_>, _>>()?;
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            headers.push((header::COOKIE, HeaderValue::from_str(&pairs.join("; "))?));
        }
        Ok(headers)
    }
}

/// Reads an id, which apps write as a text or as a whole number.
fn subject_id(value: &Value) -> Option<SubjectId> {
    match value {
        Value::String(id) => SubjectId::parse(id).ok(),
        Value::Number(id) if id.is_u64() || id.is_i64() => SubjectId::parse(&id.to_string()).ok(),
        _ => None,
    }
}

/// A JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
struct Pointer(String);

impl Pointer {
    /// The value that it points at.
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
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
                "`{text}` is no JSON Pointer; write for example \"/user/id\""
            ))
        }
    }
}
