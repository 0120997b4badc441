//! The app's own session lookup: the app is asked who the bearer of a cookie or a header is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use policies::{Denial, Fault, IdentityName, Presented, Subject, SubjectId};
use serde_json::Value;

use super::{
    cross_site::{CrossSite, is_sent_by_itself},
    failures::Attempt,
    fault,
    kept_claims::KeptClaims,
    lookup::{self, Found},
    request_view::RequestView,
};
use crate::{
    answers::{Answer, Answers, ServiceFault},
    digest::{Digest, digest},
    outbound::{HttpClient, InvalidResponse, Outbound, Outgoing, Repeat, parse_json, wrong_type},
    settings::{
        RemoteSettings,
        identities::{TokenSource, issuer::SubjectPrefix, remote::Pointer},
    },
    telemetry::Metrics,
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks the app.
pub(super) struct Remote {
    name: IdentityName,
    url: String,
    forward: Vec<TokenSource>,
    ambient: bool,
    subject: Pointer,
    subject_prefix: SubjectPrefix,
    claims: BTreeMap<String, Pointer>,
    kept: KeptClaims,
    timeout: Duration,
    answers: Answers<Result<Arc<Subject>, Denial>>,
    http: HttpClient,
    metrics: Arc<Metrics>,
}

/// What of a request the app is shown.
struct Shown<'a> {
    cookies: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a HeaderName, &'a str)>,
    /// Whether a browser may have sent any of it by itself.
    is_ambient: bool,
}

impl Remote {
    /// Builds the identity `name`.
    #[must_use]
    pub(super) fn new(
        name: IdentityName,
        settings: &RemoteSettings,
        kept: KeptClaims,
        outbound: &Outbound,
    ) -> Self {
        Self {
            name,
            url: settings.url.as_str().to_owned(),
            forward: settings.forward.clone(),
            ambient: settings.ambient,
            subject: settings.subject.clone(),
            subject_prefix: settings.subject_prefix.clone(),
            claims: settings.claims.clone(),
            kept,
            timeout: settings.timeout.get(),
            answers: Answers::new(
                settings.cache.map(policies::Interval::get),
                Result::is_err,
                outbound,
            ),
            http: outbound.http.clone(),
            metrics: outbound.metrics.clone(),
        }
    }

    /// Shows the app what the config names of the request. A request that has nothing of it is nobody's.
    pub(super) async fn present(
        &self,
        request: &dyn RequestView,
        cross_site: &CrossSite,
        attempt: &Attempt<'_>,
    ) -> Result<Presented, Fault> {
        let shown = match self.shown(request) {
            Ok(shown) if shown.is_empty() => return Ok(Presented::Nothing),
            Ok(shown) => shown,
            Err(reason) => {
                let denial = Denial::InvalidCredentials(reason.to_owned());
                return Ok(Presented::Refused(denial));
            }
        };
        if shown.is_ambient
            && let Err(denial) = cross_site.check(request)
        {
            return Ok(Presented::Refused(denial));
        }
        let ask = async {
            let call = attempt.begin_call().await?;
            let answer = self.ask(&shown).await;
            call.end(matches!(answer, Ok(Err(_))));
            Ok(answer)
        };
        let answer = match self.answers.get_unless(&shown.digest(), ask).await {
            Ok(answer) => answer.map_err(|error| fault(&self.name, error))?,
            Err(denial) => return Ok(Presented::Refused(denial)),
        };
        Ok(answer.map_or_else(Presented::Refused, Presented::Subject))
    }

    fn shown<'a>(&'a self, request: &'a dyn RequestView) -> Result<Shown<'a>, &'static str> {
        let mut shown = Shown {
            cookies: Vec::new(),
            headers: Vec::new(),
            is_ambient: false,
        };
        for source in &self.forward {
            let value = match lookup::find(request, source) {
                Found::Nothing => continue,
                Found::Unusable(reason) => return Err(reason),
                Found::One(value) => value,
            };
            shown.is_ambient |= is_sent_by_itself(source, value, self.ambient);
            match source {
                TokenSource::Cookie(name) => shown.cookies.push((name.as_str(), value)),
                TokenSource::Header(name) => shown.headers.push((name, value)),
                // The config does not allow it here.
                TokenSource::Bearer => {}
            }
        }
        Ok(shown)
    }

    async fn ask(&self, shown: &Shown<'_>) -> Answer<Result<Arc<Subject>, Denial>> {
        let answer = self.look_up(shown).await;
        self.metrics.identity_called(&self.name, answer.is_ok());
        answer
    }

    async fn look_up(&self, shown: &Shown<'_>) -> Answer<Result<Arc<Subject>, Denial>> {
        let outgoing = Outgoing {
            method: Method::GET,
            url: &self.url,
            headers: shown
                .headers()
                .map_err(|_| ServiceFault::Unaskable("a value cannot be sent in a header"))?,
            body: Bytes::new(),
            timeout: self.timeout,
            limit: MAX_ANSWER_BYTES,
            repeat: Repeat::Harmless,
        };
        let answer = self.http.send(outgoing).await?;
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
        let id = match self.subject.of(&answer) {
            None | Some(Value::Null) => return Ok(Err(Denial::NotSignedIn)),
            Some(id) => subject_id(id).ok_or_else(|| wrong_type("subject", "an id", id))?,
        };
        let id = self.subject_prefix.apply(id.as_str(), None);
        let id = id.map_err(|_| InvalidResponse::LongId)?;
        let claims = self.claims.iter().filter_map(|(name, pointer)| {
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
