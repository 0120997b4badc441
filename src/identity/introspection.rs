//! Opaque tokens: their issuer is asked about each (OAuth 2.0 Token Introspection, RFC 7662).

use std::{sync::Arc, time::Duration};

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use policies::{Claims, Clock, Denial, Fault, IdentityName, Presented};
use secrecy::{ExposeSecret as _, SecretString};
use url::form_urlencoded;

use super::{
    claims::{Accepted, ClaimRules},
    failures::Attempt,
    fault,
    kept_claims::KeptClaims,
    token::Token,
};
use crate::{
    answers::{Answer, Answers, ServiceFault},
    outbound::{HttpClient, Object, Outbound, Outgoing, Repeat},
    settings::{
        IntrospectionSettings,
        identities::{TokenSource, introspection::AuthMethod},
    },
    telemetry::Metrics,
};

/// The longest token that is asked about, and the longest answer that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks the issuer of opaque tokens.
pub(super) struct Introspection {
    url: String,
    from: Vec<TokenSource>,
    ambient: bool,
    client: ClientAuthentication,
    timeout: Duration,
    rules: ClaimRules,
    answers: Answers<Result<Accepted, Denial>>,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// How the gate says who it is (RFC 6749, 2.3.1).
enum ClientAuthentication {
    /// The value of `Authorization`.
    Basic(HeaderValue),
    /// What the form begins with.
    Post(SecretString),
}

impl Introspection {
    /// Builds the identity `name`.
    #[must_use]
    pub(super) fn new(
        name: IdentityName,
        settings: &IntrospectionSettings,
        client_secret: &SecretString,
        kept: KeptClaims,
        outbound: &Outbound,
    ) -> Self {
        let audience = settings.audience.as_ref();
        let issuers = settings.issuer.as_ref();
        Self {
            url: settings.url.as_str().to_owned(),
            from: settings.from.clone(),
            ambient: settings.ambient,
            client: ClientAuthentication::new(settings, client_secret),
            timeout: settings.timeout.get(),
            rules: ClaimRules {
                identity: name,
                issuers: issuers.map(|issuers| issuers.clone()),
                audience: audience.map(|audience| audience.clone()),
                required: settings.required_claims.clone(),
                allowed: settings.allowed_claims.clone(),
                must_expire: false,
                subject_claim: settings.subject_claim.clone(),
                subject_prefix: settings.subject_prefix.clone(),
                leeway: settings.leeway,
                kept,
            },
            answers: Answers::new(
                settings.cache.map(policies::Interval::get),
                Result::is_err,
                outbound,
            ),
            http: outbound.http.clone(),
            clock: outbound.clock.clone(),
            metrics: outbound.metrics.clone(),
        }
    }

    /// Where tokens are looked for.
    #[must_use]
    pub(super) fn from(&self) -> &[TokenSource] {
        &self.from
    }

    /// Whether headers may hold tokens that a browser or a proxy adds by itself.
    #[must_use]
    pub(super) fn is_ambient(&self) -> bool {
        self.ambient
    }

    /// Asks the issuer about a token.
    pub(super) async fn judge(
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
        let answer = match self.answers.get_unless(token.digest(), ask).await {
            Ok(answer) => answer.map_err(|error| fault(&self.rules.identity, error))?,
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
        self.rules.check_time(accepted, self.clock.now())?;
        Ok(accepted)
    }

    /// Whether a token is bad, and not only too old.
    fn is_failure(&self, answer: &Result<Accepted, Denial>) -> bool {
        let timely = self.timely(answer);
        timely.is_err_and(|denial| denial != Denial::CredentialsExpired)
    }

    async fn ask(&self, token: &str) -> Answer<Result<Accepted, Denial>> {
        let answer = self.introspect(token).await;
        self.metrics
            .identity_called(&self.rules.identity, answer.is_ok());
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
        let outgoing = Outgoing {
            method: Method::POST,
            url: &self.url,
            headers,
            body: Bytes::from(form),
            timeout: self.timeout,
            limit: MAX_ANSWER_BYTES,
            repeat: Repeat::Harmless,
        };
        let answer = self.http.send(outgoing).await?;
        if answer.status != StatusCode::OK {
            return Err(ServiceFault::Status(answer.status.as_u16()));
        }
        let mut response = Object::parse(&answer.body)?;
        let is_active = response.take_bool("active")?;
        Ok(is_active.then(|| response.into_members()))
    }

    fn accept(&self, claims: Option<Claims>) -> Result<Accepted, String> {
        let claims = claims.ok_or_else(|| "the token is not active".to_owned())?;
        self.rules.accept(&claims)
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
