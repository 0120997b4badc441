//! `kind = "introspection"`: opaque tokens, each of which their issuer is asked about (OAuth 2.0 Token Introspection, RFC
//! 7662).

use std::sync::Arc;

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use policies::{Claims, Denial, Fault, IdentityName, Interval, Presented, SecretSource};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    case::Case,
    claims::KeptClaims,
    claims::{Accepted, ClaimRules, ClaimValues, Leeway, default_subject_claim},
    credential::{TokenSource, default_ambient, default_from},
    issuer::{Issuers, SubjectPrefix},
    kind::{Build, Identity, IdentityKind, Judgement, fault},
    limits::Attempt,
    profile::{CacheKind, Place, Profile, Takes},
    section::Section,
    token::Token,
};
use crate::{
    config::ServiceUrl,
    outbound::{
        JsonObject, Outbound, OutboundRequest, Resend,
        single_flight::{ServiceFault, ServiceResult, SingleFlightCache},
    },
    telemetry::CallResult,
};

/// The longest token that is asked about, and the longest answer that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// An opaque token that its issuer is asked about (RFC 7662).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IntrospectionSettings {
    /// The introspection endpoint.
    url: ServiceUrl,
    /// Who the gate is to the issuer.
    client_id: String,
    /// The secret that it says so with.
    client_secret: SecretSource,
    /// How it says so.
    #[serde(default)]
    auth_method: AuthMethod,
    /// Lets tokens and the client's secret travel over plain http to other machines.
    #[serde(default)]
    insecure_http: bool,
    /// The issuer that `iss` must name, or a list of issuers. `{tid}` in one stands for the claim `tid`, which
    /// `required_claims` or `allowed_claims` must restrict.
    #[serde(default)]
    issuer: Option<Issuers>,
    /// The audiences of which `aud` must name one.
    #[serde(default)]
    #[schemars(length(min = 1))]
    audience: Option<Vec<String>>,
    /// Other members that the answer must have, for example `{ client_id = "spa" }`.
    #[serde(default)]
    required_claims: ClaimValues,
    /// Claims that must have one of these values if the token has them, for example
    /// `{ azp = ["https://app.example.com"] }`.
    #[serde(default)]
    allowed_claims: ClaimValues,
    /// Where the token is looked for: `"bearer"`, `"cookie:NAME"`, or `"header:NAME"`, with or without `Bearer ` before
    /// the token.
    #[serde(default = "default_from")]
    #[schemars(length(min = 1))]
    from: Vec<TokenSource>,
    /// Whether a browser may send its headers by itself, or a proxy may derive them from what a browser sends: then
    /// they are accepted from the gate's own pages and the allowed origins only. `Authorization` is never checked for
    /// this, and cookies always are.
    #[serde(default = "default_ambient")]
    ambient: bool,
    /// The member of the answer that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    subject_claim: String,
    /// What the subject's id begins with, so that equal ids of two issuers are two users; `{iss}` is the token's
    /// issuer.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// How far the clocks may be apart.
    #[serde(default)]
    leeway: Leeway,
    /// How long an answer is remembered, never past the token's `exp`; left out: not at all.
    #[serde(default)]
    cache: Option<Interval>,
    /// How long the issuer may take.
    #[serde(default = "default_timeout")]
    timeout: Interval,
}

/// How a client says who it is (RFC 6749, 2.3.1), by the names of RFC 7591.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AuthMethod {
    /// By HTTP Basic authentication.
    #[default]
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

impl IntrospectionSettings {
    fn rules(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuers: self.issuer.as_ref(),
            audience: self.audience.as_deref(),
            required: &self.required_claims,
            allowed: &self.allowed_claims,
            must_expire: false,
            subject_claim: &self.subject_claim,
            subject_prefix: &self.subject_prefix,
        }
    }
}

impl IdentityKind for IntrospectionSettings {
    const NAME: &'static str = "introspection";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: self.from.iter().map(Place::from).collect(),
            takes: Takes::Others,
            issuers: self.issuer.as_ref(),
            subject_prefix: Some(&self.subject_prefix),
            exchange: None,
            cache: Some(CacheKind::Responses),
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        section.check_from(&self.from, self.ambient);
        self.rules().check(section);
        section.check_private("url", &self.url, self.insecure_http);
        let secret = section.secret("client_secret", &self.client_secret, 1)?;
        Some(Box::new(move |context| {
            let outbound = context.outbound;
            let cache = self.cache.map(Interval::get);
            Arc::new(Introspection {
                name: context.name.clone(),
                client: ClientAuthentication::new(&self, &secret),
                kept: context.kept.clone(),
                answers: SingleFlightCache::new(cache, Result::is_err, outbound),
                outbound: outbound.clone(),
                settings: self.clone(),
            })
        }))
    }
}

/// Asks the issuer of opaque tokens.
struct Introspection {
    name: IdentityName,
    settings: Arc<IntrospectionSettings>,
    client: ClientAuthentication,
    kept: KeptClaims,
    answers: SingleFlightCache<Result<Accepted, Denial>>,
    outbound: Outbound,
}

/// How the gate says who it is (RFC 6749, 2.3.1).
enum ClientAuthentication {
    /// The value of `Authorization`.
    Basic(HeaderValue),
    /// What the form begins with.
    Post(SecretString),
}

impl Identity for Introspection {
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a> {
        let IntrospectionSettings { from, ambient, .. } = &*self.settings;
        let is_opaque = |source: &TokenSource, token: &Token<'_>| {
            (!case.is_claimed(source, token)).then_some(())
        };
        match case.find(from, *ambient, is_opaque) {
            Ok(None) => Presented::Nothing.into(),
            Ok(Some((token, ()))) => {
                Judgement::Later(Box::pin(self.ask_about(token, &case.attempt)))
            }
            Err(denial) => denial.into(),
        }
    }

    fn token_sources(&self) -> &[TokenSource] {
        &self.settings.from
    }
}

impl Introspection {
    /// Asks the issuer about a token.
    async fn ask_about(
        &self,
        token: &Token<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<Presented, Fault> {
        let text = token.text();
        if text.len() > MAX_TOKEN_BYTES {
            let reason = "the token is too long".to_owned();
            return Ok(Presented::Refused(Denial::InvalidCredentials(reason)));
        }
        let ask = async {
            let call = attempt.begin_call().await?;
            let answer = self.ask(text).await;
            call.end(matches!(&answer, Ok(answer) if self.is_failure(answer)));
            Ok(answer)
        };
        let answer = match self.answers.get_or_refuse(token.digest(), ask).await {
            Ok(answer) => answer.map_err(|error| fault(&self.name, error))?,
            Err(denial) => return Ok(Presented::Refused(denial)),
        };
        Ok(match self.timely(&answer) {
            Ok(accepted) => Presented::Subject(accepted.subject.clone()),
            Err(denial) => Presented::Refused(denial),
        })
    }

    /// The accepted token, at the right time.
    fn timely<'a>(&self, answer: &'a Result<Accepted, Denial>) -> Result<&'a Accepted, Denial> {
        let accepted = answer.as_ref().map_err(Clone::clone)?;
        accepted.check_time(self.outbound.clock.now(), self.settings.leeway)?;
        Ok(accepted)
    }

    /// Whether a token is bad, and not only too old.
    fn is_failure(&self, answer: &Result<Accepted, Denial>) -> bool {
        let timely = self.timely(answer);
        timely.is_err_and(|denial| denial != Denial::CredentialsExpired)
    }

    async fn ask(&self, token: &str) -> ServiceResult<Result<Accepted, Denial>> {
        let answer = self.introspect(token).await;
        let (metrics, result) = (&self.outbound.metrics, CallResult::of(&answer));
        metrics.identity_calls(self.name.clone(), result).inc();
        let claims = answer?;
        Ok(self.accept(claims).map_err(Denial::InvalidCredentials))
    }

    /// Asks the issuer: the members of its response (RFC 7662, 2.2), if the token is active.
    async fn introspect(&self, token: &str) -> Result<Option<Claims>, ServiceFault> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token)
            .append_pair("token_type_hint", "access_token");
        let mut form = form.finish();
        let mut headers = vec![(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )];
        match &self.client {
            ClientAuthentication::Basic(value) => {
                headers.push((header::AUTHORIZATION, value.clone()));
            }
            ClientAuthentication::Post(credentials) => {
                form.push('&');
                form.push_str(credentials.expose_secret());
            }
        }
        let outgoing = OutboundRequest {
            method: Method::POST,
            url: self.settings.url.as_str(),
            headers,
            body: Bytes::from(form),
            timeout: self.settings.timeout.get(),
            max_response_bytes: MAX_ANSWER_BYTES,
            resend: Resend::Safe,
        };
        let answer = self.outbound.http.send(outgoing).await?;
        if answer.status != StatusCode::OK {
            return Err(ServiceFault::Status(answer.status.as_u16()));
        }
        let mut response = JsonObject::parse(&answer.body)?;
        let is_active = response.take_bool("active")?;
        Ok(is_active.then(|| response.into_members()))
    }

    fn accept(&self, claims: Option<Claims>) -> Result<Accepted, String> {
        let claims = claims.ok_or_else(|| "the token is not active".to_owned())?;
        self.settings
            .rules()
            .accept(&self.name, &self.kept, &claims)
    }
}

impl ClientAuthentication {
    fn new(settings: &IntrospectionSettings, secret: &SecretString) -> Self {
        let id = &settings.client_id;
        let secret = secret.expose_secret();
        match settings.auth_method {
            AuthMethod::ClientSecretBasic => {
                // Both are form-encoded first (RFC 6749, 2.3.1).
                let encode = |text: &str| -> String {
                    form_urlencoded::byte_serialize(text.as_bytes()).collect()
                };
                let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
                let mut value = HeaderValue::from_str(&format!("Basic {pair}"))
                    .expect("base64 is visible ASCII");
                value.set_sensitive(true);
                Self::Basic(value)
            }
            AuthMethod::ClientSecretPost => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("client_id", id)
                    .append_pair("client_secret", secret);
                Self::Post(form.finish().into())
            }
        }
    }
}
