//! `kind = "jwt"`: JSON Web Tokens (RFC 7519), verified with keys that the config names.

mod key_set_source;
mod keys;
pub(super) mod published_keys;

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, Fault, IdentityName, Presented, SecretSource};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    keys::Keys,
    published_keys::{NoKeys, PublishedKeys},
};
use super::{
    case::Case,
    claim_rules::{Accepted, ClaimRules, ClaimValues, Leeway, default_subject_claim, mismatch},
    failures::Attempt,
    issuer::{Issuers, SubjectPrefix},
    kept_claims::KeptClaims,
    kind::{Build, Identity, IdentityKind, Judgement, fault},
    profile::{Place, Profile, Remembers, Takes},
    section::Section,
    token::{Token, UnverifiedJwt},
    token_source::{TokenSource, default_ambient, default_from},
};
use crate::{
    config::{ServiceUrl, secret::SecretSources},
    identities::keys::Key,
    outbound::cache::{Cache, Weigh, Weighed, cache},
};

/// A JSON Web Token (RFC 7519).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtSettings {
    /// The algorithms that are accepted, whatever a token says.
    #[schemars(with = "Vec<String>", length(min = 1))]
    algorithms: Vec<Algorithm>,
    /// The shared secret of HS256, HS384 and HS512, or a list of secrets that are all valid while one replaces another.
    #[serde(default)]
    secret: Option<SecretSources>,
    /// The public key in PEM of the other algorithms.
    #[serde(default)]
    public_key: Option<SecretSource>,
    /// A JSON Web Key Set (RFC 7517) in a file.
    #[serde(default)]
    jwks: Option<SecretSource>,
    /// Where the issuer publishes its JSON Web Key Set; fetched at start and again in the background.
    #[serde(default)]
    jwks_url: Option<ServiceUrl>,
    /// Finds the key set by OpenID Connect Discovery: `<issuer>/.well-known/openid-configuration`.
    #[serde(default)]
    #[schemars(with = "bool")]
    discovery: Option<bool>,
    /// Lets keys be fetched over plain http from other machines: whoever is on the way can then sign in as
    /// anyone.
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
    /// Other claims that the token must have, for example `{ token_use = "access" }`.
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
    /// The claim that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    subject_claim: String,
    /// What the subject's id begins with, so that equal ids of two issuers are two users; `{iss}` is the token's
    /// issuer.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// How far the clocks may be apart.
    #[serde(default)]
    leeway: Leeway,
}

impl JwtSettings {
    fn rules(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuers: self.issuer.as_ref(),
            audience: self.audience.as_deref(),
            required: &self.required_claims,
            allowed: &self.allowed_claims,
            must_expire: true,
            subject_claim: &self.subject_claim,
            subject_prefix: &self.subject_prefix,
        }
    }
}

impl IdentityKind for JwtSettings {
    const NAME: &'static str = "jwt";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: self.from.iter().map(Place::from).collect(),
            takes: Takes::Jwts {
                algorithms: &self.algorithms,
                issuers: self.issuer.as_ref(),
            },
            issuers: self.issuer.as_ref(),
            subject_prefix: Some(&self.subject_prefix),
            exchange: None,
            remembers: Remembers::Tokens,
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        // A key that could not be read is not a missing one.
        if section.has_fault("") {
            return None;
        }
        section.check_from(&self.from, self.ambient);
        self.rules().check(section);
        if self.algorithms.is_empty() {
            section.fault("algorithms", "must name at least one");
            return None;
        }
        let keys = self.load_keys(section)?;
        Some(Box::new(move |context| {
            Arc::new(Jwt {
                name: context.name.clone(),
                keys: keys.build(&self.algorithms, context),
                verified: cache(context.outbound.caches.tokens),
                kept: context.kept.clone(),
                clock: context.clock().clone(),
                settings: self.clone(),
            })
        }))
    }
}

/// The longest token that is verified, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The most that a token may take to be remembered, in bytes: one that takes more makes room for too few others, and is
/// verified each time.
const MOST_REMEMBERED: u64 = 32 * 1024;

/// Verifies tokens.
///
/// The algorithms and the keys come from the config, never from the token. A token whose signature was
/// verified is remembered by its SHA-256 for as long as its key stays in use, so that returning users cost no
/// signature; its times are checked every time.
struct Jwt {
    name: IdentityName,
    settings: Arc<JwtSettings>,
    keys: Keys,
    verified: Cache<Verified>,
    kept: KeptClaims,
    clock: Arc<dyn Clock>,
}

/// A token whose signature and claims are right.
#[derive(Clone)]
struct Verified {
    accepted: Accepted,
    key: Arc<Key>,
}

impl Weigh for Verified {
    fn heap(&self) -> usize {
        self.accepted.heap()
    }
}

/// A token that addresses the identity.
enum Addressed {
    /// It was verified earlier, and so it did then.
    Remembered(Verified),
    /// It is yet to be verified.
    New,
}

/// Why a token is not verified.
enum Unverified {
    /// It is bad.
    Bad(String),
    /// The keys that would tell are missing.
    NoKeys(NoKeys),
}

impl<T: Into<String>> From<T> for Unverified {
    fn from(reason: T) -> Self {
        Self::Bad(reason.into())
    }
}

impl From<NoKeys> for Unverified {
    fn from(why: NoKeys) -> Self {
        Self::NoKeys(why)
    }
}

impl Identity for Jwt {
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a> {
        let JwtSettings { from, ambient, .. } = &*self.settings;
        let found = case.find(from, *ambient, |_, token| self.addressed_by(token));
        match found {
            Ok(None) => Presented::Nothing.into(),
            Ok(Some((token, Addressed::Remembered(verified)))) if !verified.key.is_retired() => {
                self.judge_time(token, verified, &case.attempt).into()
            }
            // Boxed, so that returning users' requests do not carry room for it.
            Ok(Some((token, _))) => {
                Judgement::Later(Box::pin(self.judge_new(token, &case.attempt)))
            }
            Err(denial) => denial.into(),
        }
    }

    fn token_sources(&self) -> &[TokenSource] {
        &self.settings.from
    }

    fn claims_token(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        let mut from = self.settings.from.iter();
        from.any(|own| own.is_same_place(source)) && self.addressed_by(token).is_some()
    }

    fn why_unaddressed(&self, token: &Token<'_>) -> Option<String> {
        let algorithms = &self.settings.algorithms;
        Some(match token.jwt() {
            None => "the token is not a JWT of a known `alg`".to_owned(),
            Some(jwt) if !algorithms.contains(&jwt.algorithm()) => {
                let name = |algorithm: &Algorithm| format!("{algorithm:?}");
                let expected: Vec<_> = algorithms.iter().map(name).collect();
                let found = name(&jwt.algorithm()).into();
                mismatch("alg", Some(&found), expected.iter().map(String::as_str))
            }
            Some(jwt) => {
                let issuers = self.settings.issuer.iter().flat_map(Issuers::iter);
                mismatch("iss", jwt.issuer(), issuers)
            }
        })
    }

    fn published_keys(&self) -> Option<&Arc<PublishedKeys>> {
        match &self.keys {
            Keys::Published(keys) => Some(keys),
            Keys::Fixed(_) | Keys::Set(_) => None,
        }
    }
}

impl Jwt {
    /// Whether a token addresses this identity: by its algorithm, and by its issuer if the config names issuers.
    fn addressed_by(&self, token: &Token<'_>) -> Option<Addressed> {
        if let Some(verified) = self.verified.get(token.digest()) {
            return Some(Addressed::Remembered(verified.value));
        }
        let jwt = token.jwt()?;
        let issuers = self.settings.issuer.as_ref();
        let is_addressed = self.settings.algorithms.contains(&jwt.algorithm())
            && issuers.is_none_or(|issuers| jwt.is_of(issuers));
        is_addressed.then_some(Addressed::New)
    }

    /// Judges a token that is not remembered.
    async fn judge_new(
        &self,
        token: &Token<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<Presented, Fault> {
        match self.verify(token, attempt).await {
            Ok(verified) => {
                self.remember(token, &verified);
                Ok(self.judge_time(token, verified, attempt))
            }
            Err(Unverified::NoKeys(NoKeys::Refused(denial))) => Ok(Presented::Refused(denial)),
            Err(Unverified::Bad(reason)) => {
                attempt.fail();
                Ok(Presented::Refused(Denial::InvalidCredentials(reason)))
            }
            Err(Unverified::NoKeys(NoKeys::Unavailable(error))) => Err(fault(&self.name, error)),
        }
    }

    /// Judges a verified token by the time.
    fn judge_time(
        &self,
        token: &Token<'_>,
        verified: Verified,
        attempt: &Attempt<'_>,
    ) -> Presented {
        let timely = verified
            .accepted
            .check_time(self.clock.now(), self.settings.leeway);
        match timely {
            Ok(()) => Presented::Subject(verified.accepted.subject),
            Err(denial) => {
                if denial == Denial::CredentialsExpired {
                    self.verified.remove(token.digest());
                } else {
                    attempt.fail();
                }
                Presented::Refused(denial)
            }
        }
    }

    fn remember(&self, token: &Token<'_>, verified: &Verified) {
        let verified = Weighed::new(verified.clone());
        if verified.bytes() <= MOST_REMEMBERED {
            self.verified.insert(*token.digest(), verified);
        }
    }

    /// Verifies everything but the times.
    async fn verify(
        &self,
        token: &Token<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<Verified, Unverified> {
        if token.text().len() > MAX_TOKEN_BYTES {
            return Err("the token is too long".into());
        }
        let jwt = token.jwt().ok_or("the token is not a JWT")?;
        if jwt.demands_extension() {
            return Err("the token's header has `crit`".into());
        }
        let key = self.signer(jwt, attempt).await?;
        let claims = jwt.claims().ok_or("the token's claims cannot be read")?;
        let accepted = self
            .settings
            .rules()
            .accept(&self.name, &self.kept, &claims)?;
        Ok(Verified { accepted, key })
    }

    /// The key that signed a token.
    async fn signer(
        &self,
        jwt: &UnverifiedJwt<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<Arc<Key>, Unverified> {
        let keys = self.keys.find(jwt.kid(), jwt.algorithm(), attempt).await?;
        let Some(first) = keys.first().cloned() else {
            return Err("no key of the identity has the token's `kid` and `alg`".into());
        };
        attempt.note_cost();
        if let Some(signer) = keys.into_iter().find(|key| jwt.is_signed_by(key)) {
            return Ok(signer);
        }
        // An issuer may have replaced the key under its `kid`.
        let another = match &self.keys {
            Keys::Published(keys) => keys.find_another(jwt.kid(), &first, attempt).await,
            Keys::Fixed(_) | Keys::Set(_) => Ok(None),
        };
        let another = match another {
            // The set that serves does not verify the token, whatever a fetch would have brought.
            Err(NoKeys::Unavailable(_)) => None,
            another => another?,
        };
        another
            .filter(|key| jwt.is_signed_by(key))
            .ok_or_else(|| "no key of the identity made the token's signature".into())
    }
}
