//! `kind = "introspection"`: opaque tokens, which the gate sends to their issuer (OAuth 2.0 Token Introspection, RFC
//! 7662).

use std::sync::Arc;

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use policies::{ClaimPath, Claims, Denial, Interval, SecretSource};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    auth_request::{AuthRequest, Token},
    claim_values::{ClaimValues, RequiredScopes},
    claims::{ClaimFilter, ClaimRules, Leeway, ValidClaims, default_subject_claim},
    issuer::{Issuers, SubjectPrefix},
    keys::issuer_clock,
    kind::{Authentication, Build, Identity, IdentityKind},
    profile::{Accepts, CacheKind, Place, Profile},
    request_view::{TokenSource, default_ambient, default_from},
    section::Section,
    service_lookup::{MADE_UP, MAX_RESPONSE_BYTES, ServiceLookup, default_timeout},
};
use crate::{
    config::ServiceUrl,
    outbound::{
        JsonObject, OutboundRequest, OutboundResponse, Resend, clock_skew,
        single_flight::ServiceResult,
    },
    telemetry::Point,
};

const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// An opaque token, which the gate sends to its issuer (RFC 7662).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IntrospectionSettings {
    /// The introspection endpoint.
    url: ServiceUrl,
    /// The client id of the gate at the issuer.
    client_id: String,
    /// The client secret.
    client_secret: SecretSource,
    /// How the gate authenticates. Default: `"client_secret_basic"`.
    #[serde(default)]
    auth_method: AuthMethod,
    /// Allows the gate to send tokens and the client secret over plain http to other machines.
    #[serde(default)]
    insecure_http: bool,
    /// The issuer in `iss`, or a list of issuers. An issuer may have the placeholder `{tid}` for the claim `tid`, which
    /// `required_claims` or `allowed_claims` must restrict. Default: none; every issuer is accepted.
    #[serde(default)]
    issuer: Option<Issuers>,
    /// `aud` must contain one of these audiences. Default: none; `aud` is not checked.
    #[serde(default)]
    #[schemars(length(min = 1))]
    audience: Option<Vec<String>>,
    /// Other members that the response must have, for example `{ client_id = "spa" }`. Default: none.
    #[serde(default)]
    required_claims: ClaimValues,
    /// Claims that must have one of these values if the token has them, for example
    /// `{ azp = ["https://app.example.com"] }`. Default: none.
    #[serde(default)]
    allowed_claims: ClaimValues,
    /// Scopes that the token must have in `scope` or `scp`, which is a list or a string with spaces. Default: none.
    #[serde(default)]
    required_scopes: RequiredScopes,
    /// The places of the token: `"bearer"`, `"cookie:NAME"`, or `"header:NAME"`, with or without `Bearer ` before the
    /// token. Default: `["bearer"]`.
    #[serde(default = "default_from")]
    #[schemars(length(min = 1))]
    from: Vec<TokenSource>,
    /// Whether a browser may send the headers by itself, or a proxy may derive them from what a browser sends. If so, the
    /// gate accepts them only from its own pages and the allowed origins. This check always applies to cookies, and never
    /// to `Authorization`.
    #[serde(default = "default_ambient")]
    ambient: bool,
    /// The member of the response that has the subject's id.
    #[serde(default = "default_subject_claim")]
    subject_claim: ClaimPath,
    /// The prefix of the subject's id, so that equal ids of two issuers are two users. `{iss}` is the token's issuer.
    /// Default: none.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// The allowed clock skew. Default: `"30s"`.
    #[serde(default)]
    leeway: Leeway,
    /// How long a response is cached, at most until the token's `exp`. Default: none; the gate asks for
    /// every request.
    #[serde(default)]
    cache: Option<Interval>,
    /// The timeout of the call. Default: `"2s"`.
    #[serde(default = "default_timeout")]
    timeout: Interval,
}

/// How a client authenticates (RFC 6749, 2.3.1), with the names of RFC 7591.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AuthMethod {
    /// With HTTP Basic authentication.
    #[default]
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}

impl IntrospectionSettings {
    fn rules(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuers: self.issuer.as_ref(),
            audience: self.audience.as_deref(),
            required: &self.required_claims,
            allowed: &self.allowed_claims,
            scopes: &self.required_scopes,
            requires_exp: false,
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
            accepts: Accepts::Unclaimed,
            issuers: self.issuer.as_ref(),
            subject_prefix: Some(&self.subject_prefix),
            exchange: None,
            cache: Some(CacheKind::Responses),
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        section.check_from(&self.from, self.ambient);
        self.rules().check_settings(section);
        section.check_https("url", &self.url, self.insecure_http);
        let secret = section.secret("client_secret", &self.client_secret, 1)?;
        Some(Box::new(move |context| {
            Arc::new(Introspection {
                client: ClientAuthentication::new(&self, &secret),
                claim_filter: context.claim_filter().clone(),
                lookup: ServiceLookup::new(self.cache, context),
                settings: self.clone(),
            })
        }))
    }
}

/// Asks the issuer about opaque tokens.
struct Introspection {
    settings: Arc<IntrospectionSettings>,
    client: ClientAuthentication,
    claim_filter: ClaimFilter,
    lookup: ServiceLookup<ValidClaims>,
}

/// How the gate authenticates to the issuer (RFC 6749, 2.3.1).
enum ClientAuthentication {
    /// The value of `Authorization`.
    Basic(HeaderValue),
    /// The start of the form.
    Post(SecretString),
}

impl Identity for Introspection {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(async move {
            let IntrospectionSettings { from, ambient, .. } = &*self.settings;
            let is_opaque = |source: &TokenSource, token: &Token<'_>| {
                (!request.is_claimed(source, token)).then_some(())
            };
            let Some((token, ())) = request.find_token(from, *ambient, is_opaque)? else {
                return Ok(None);
            };
            let bytes = token.text().len();
            if bytes > MAX_TOKEN_BYTES {
                let reason = format!(
                    "the token is too long: it has {bytes} bytes, and the gate sends at most {MAX_TOKEN_BYTES} to the issuer"
                );
                return Err(Denial::InvalidCredentials(reason).into());
            }
            let claims = self.lookup.get(
                token.digest(),
                &request.failures,
                self.ask(token.text()),
                |result| self.is_failure(result),
            );
            let claims = claims.await?;
            self.check_time(&claims)?;
            Ok(Some(claims.subject))
        })
    }

    fn token_sources(&self) -> &[TokenSource] {
        &self.settings.from
    }

    /// Asks about a token that cannot be valid.
    fn try_out(&self) -> LocalBoxFuture<'_, Vec<Point>> {
        Box::pin(async {
            let clock = &self.lookup.outbound.clock;
            let sent = clock.now();
            let response = self.send(MADE_UP).await;
            let received = clock.now();
            let skew = response.as_ref().ok();
            let skew = skew.and_then(|response| clock_skew(&response.headers, sent, received));
            let remedy = match response.as_ref().map(|response| response.status.as_u16()) {
                Ok(400 | 401 | 403) => {
                    "correct `client_id`, `client_secret` and `auth_method`, with which the gate authenticates"
                }
                _ => "correct `url`; if it is right, check the network to it and `[outbound] ca`",
            };
            let active = response.and_then(|response| active_claims(&response));
            let point = match active {
                Ok(None) => Point::ok("", "says that a made-up token is not active"),
                Ok(Some(_)) => Point::failed(
                    "",
                    "says that a made-up token is active",
                    "correct `url`: it must be the introspection endpoint of the issuer (RFC 7662)",
                ),
                Err(fault) => return vec![Point::failed("", fault.to_string(), remedy)],
            };
            vec![point, issuer_clock(skew)]
        })
    }
}

impl Introspection {
    fn check_time(&self, claims: &ValidClaims) -> Result<(), Denial> {
        claims.check_time(self.lookup.outbound.clock.now(), self.settings.leeway)
    }

    /// An expired token does not count as a failure.
    fn is_failure(&self, result: &Result<ValidClaims, Denial>) -> bool {
        match result {
            Ok(claims) => {
                let checked = self.check_time(claims);
                checked.is_err_and(|denial| !matches!(denial, Denial::CredentialsExpired(_)))
            }
            Err(_) => true,
        }
    }

    async fn ask(&self, token: &str) -> ServiceResult<Result<ValidClaims, Denial>> {
        let claims = active_claims(&self.send(token).await?)?;
        let claims = claims.ok_or_else(|| "the token is not active".to_owned());
        let valid = claims.and_then(|claims| {
            let rules = self.settings.rules();
            rules.validate(&self.lookup.identity, &self.claim_filter, &claims)
        });
        Ok(valid.map_err(Denial::InvalidCredentials))
    }

    async fn send(&self, token: &str) -> ServiceResult<OutboundResponse> {
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
            max_response_bytes: MAX_RESPONSE_BYTES,
            resend: Resend::Safe,
        };
        Ok(self.lookup.outbound.http.send(outgoing).await?)
    }
}

/// Returns the members of the issuer's response (RFC 7662, 2.2), or `None` if the token is not active.
fn active_claims(response: &OutboundResponse) -> ServiceResult<Option<Claims>> {
    if response.status != StatusCode::OK {
        return Err(response.unexpected_status());
    }
    let mut members = JsonObject::parse(&response.body)?;
    let is_active = members.take_bool("active")?;
    Ok(is_active.then(|| members.into_members()))
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
