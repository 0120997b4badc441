//! `kind = "jwt"`: JSON Web Tokens (RFC 7519), verified with the keys of the config.

mod discovery;
mod keys;
mod settings;

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use jsonwebtoken::Algorithm;
use policies::{ByteCount, Clock, Denial, IdentityName, excerpt};
use serde_json::Value;

use self::keys::Keys;
pub(super) use self::settings::JwtSettings;
use super::{
    auth_request::{AuthRequest, Token, UnverifiedJwt},
    claim_values::mismatch,
    claims::{ClaimFilter, ValidClaims},
    issuer::Issuers,
    keys::{Key, KeyError, PublishedKeys},
    kind::{AuthError, Authentication, Build, Identity, IdentityKind, fault},
    limits::FailureTracker,
    profile::{Accepts, CacheKind, Place, Profile},
    request_view::TokenSource,
    section::Section,
};
use crate::{
    outbound::cache::{Cache, CacheEntry, HeapSize, new_cache},
    telemetry::Point,
};

impl IdentityKind for JwtSettings {
    const NAME: &'static str = "jwt";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: self.from.iter().map(Place::from).collect(),
            accepts: Accepts::Jwts {
                algorithms: &self.algorithms,
                issuers: self.issuer.as_ref(),
            },
            issuers: self.issuer.as_ref(),
            subject_prefix: Some(&self.subject_prefix),
            exchange: None,
            cache: Some(CacheKind::Tokens),
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        // An unreadable key is not a missing one.
        if section.has_fault("") {
            return None;
        }
        section.check_from(&self.from, self.ambient);
        self.rules().check_settings(section);
        if self.max_token_size > MAX_TOKEN_SIZE {
            let message =
                "must be at most 128KiB, because the gate refuses requests with larger headers";
            section.fault("max_token_size", message);
        }
        if self.algorithms.is_empty() {
            section.fault("algorithms", "must name at least one algorithm");
            return None;
        }
        let keys = self.load_keys(section)?;
        Some(Box::new(move |context| {
            Arc::new(Jwt {
                name: context.name.clone(),
                keys: keys.build(&self.algorithms, context),
                verified: new_cache(context.outbound.caches.tokens),
                claim_filter: context.claim_filter().clone(),
                clock: context.clock().clone(),
                settings: self.clone(),
            })
        }))
    }
}

/// actix-http refuses larger heads of requests.
const MAX_TOKEN_SIZE: ByteCount = ByteCount::new(128 * 1024);

/// Larger tokens are verified each time, because they would evict too many others from the cache.
const MAX_CACHED_BYTES: u64 = 32 * 1024;

/// Verifies tokens.
///
/// The algorithms and the keys come from the config, never from the token. A verified token is cached under its SHA-256
/// while its key is in use, so that a returning user costs no signature check. Its times are checked every time.
struct Jwt {
    name: IdentityName,
    settings: Arc<JwtSettings>,
    keys: Keys,
    verified: Cache<VerifiedToken>,
    claim_filter: ClaimFilter,
    clock: Arc<dyn Clock>,
}

/// A token with a valid signature and valid claims.
#[derive(Clone)]
struct VerifiedToken {
    claims: ValidClaims,
    key: Arc<Key>,
}

impl HeapSize for VerifiedToken {
    fn heap_size(&self) -> usize {
        self.claims.heap_size()
    }
}

/// A token for this identity.
enum MatchedToken {
    Cached(VerifiedToken),
    New,
}

/// Why a token cannot be verified.
enum VerifyError {
    Invalid(String),
    Key(KeyError),
}

impl<T: Into<String>> From<T> for VerifyError {
    fn from(reason: T) -> Self {
        Self::Invalid(reason.into())
    }
}

impl From<KeyError> for VerifyError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl Identity for Jwt {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(async move {
            let JwtSettings { from, ambient, .. } = &*self.settings;
            let found = request.find_token(from, *ambient, |_, token| self.matches(token))?;
            let Some((token, matched)) = found else {
                return Ok(None);
            };
            let verified = match matched {
                MatchedToken::Cached(verified) if !verified.key.is_retired() => verified,
                _ => {
                    let verified = self.verify_new(token, &request.failures).await?;
                    self.add_to_cache(token, &verified);
                    verified
                }
            };
            self.check_time(token, &verified, &request.failures)?;
            Ok(Some(verified.claims.subject))
        })
    }

    fn token_sources(&self) -> &[TokenSource] {
        &self.settings.from
    }

    fn claims_token(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        let mut from = self.settings.from.iter();
        from.any(|own| own.is_same_place(source)) && self.matches(token).is_some()
    }

    fn mismatch(&self, token: &Token<'_>) -> Option<String> {
        let algorithms = &self.settings.algorithms;
        Some(match token.jwt() {
            None => "the token is not a JWT".to_owned(),
            Some(jwt) if !self.has_own_algorithm(jwt) => {
                let name = |algorithm: &Algorithm| format!("{algorithm:?}");
                let expected: Vec<_> = algorithms.iter().map(name).collect();
                let found = jwt.alg().into();
                mismatch("alg", Some(&found), expected.iter().map(String::as_str))
            }
            Some(jwt) => {
                let issuers = self.settings.issuer.iter().flat_map(Issuers::iter);
                mismatch("iss", jwt.iss(), issuers)
            }
        })
    }

    fn published_keys(&self) -> Option<&Arc<PublishedKeys>> {
        match &self.keys {
            Keys::Published(keys) => Some(keys),
            Keys::Fixed(_) | Keys::Set(_) => None,
        }
    }

    fn try_out(&self) -> LocalBoxFuture<'_, Vec<Point>> {
        Box::pin(async {
            let issuer = self.settings.issuer.as_ref().and_then(Issuers::literal);
            match self.published_keys() {
                Some(keys) => keys.try_out(issuer).await,
                None => Vec::new(),
            }
        })
    }
}

impl Jwt {
    /// A token is for this identity if it has one of its algorithms and, if the config has issuers, one of them.
    fn matches(&self, token: &Token<'_>) -> Option<MatchedToken> {
        if let Some(verified) = self.verified.get(token.digest()) {
            return Some(MatchedToken::Cached(verified.value));
        }
        let jwt = token.jwt()?;
        let issuers = self.settings.issuer.as_ref();
        let matches =
            self.has_own_algorithm(jwt) && issuers.is_none_or(|issuers| jwt.is_from(issuers));
        matches.then_some(MatchedToken::New)
    }

    fn has_own_algorithm(&self, jwt: &UnverifiedJwt<'_>) -> bool {
        let algorithms = &self.settings.algorithms;
        jwt.algorithm()
            .is_some_and(|algorithm| algorithms.contains(&algorithm))
    }

    async fn verify_new(
        &self,
        token: &Token<'_>,
        failures: &FailureTracker<'_>,
    ) -> Result<VerifiedToken, AuthError> {
        self.verify(token, failures)
            .await
            .map_err(|error| match error {
                VerifyError::Invalid(reason) => {
                    failures.record_failure();
                    Denial::InvalidCredentials(reason).into()
                }
                VerifyError::Key(KeyError::Refused(denial)) => denial.into(),
                VerifyError::Key(error) => fault(&self.name, error).into(),
            })
    }

    fn check_time(
        &self,
        token: &Token<'_>,
        verified: &VerifiedToken,
        failures: &FailureTracker<'_>,
    ) -> Result<(), Denial> {
        let leeway = self.settings.leeway;
        let checked = verified.claims.check_time(self.clock.now(), leeway);
        match &checked {
            Ok(()) => {}
            Err(Denial::CredentialsExpired(_)) => {
                self.verified.remove(token.digest());
            }
            Err(_) => failures.record_failure(),
        }
        checked
    }

    fn add_to_cache(&self, token: &Token<'_>, verified: &VerifiedToken) {
        let entry = CacheEntry::new(verified.clone());
        if entry.bytes() <= MAX_CACHED_BYTES {
            self.verified.insert(*token.digest(), entry);
        }
    }

    /// Verifies everything except the times.
    async fn verify(
        &self,
        token: &Token<'_>,
        failures: &FailureTracker<'_>,
    ) -> Result<VerifiedToken, VerifyError> {
        let (bytes, max) = (token.text().len(), self.settings.max_token_size.bytes());
        if bytes as u64 > max {
            let reason = "the token is too long: it has";
            return Err(format!("{reason} {bytes} bytes, and `max_token_size` is {max}").into());
        }
        let jwt = token.jwt().ok_or("the token is not a JWT")?;
        if jwt.has_crit() {
            return Err("the token's header has `crit`".into());
        }
        let key = self.find_signer(jwt, failures).await?;
        let claims = jwt
            .claims()
            .ok_or("the token's claims are not valid JSON")?;
        let rules = self.settings.rules();
        let claims = rules.validate(&self.name, &self.claim_filter, &claims)?;
        Ok(VerifiedToken { claims, key })
    }

    /// Finds the key that signed a token.
    async fn find_signer(
        &self,
        jwt: &UnverifiedJwt<'_>,
        failures: &FailureTracker<'_>,
    ) -> Result<Arc<Key>, VerifyError> {
        let kid = jwt.kid();
        let algorithm = jwt.algorithm().ok_or("the token's `alg` is unknown")?;
        let keys = self.keys.find(kid, algorithm, failures).await?;
        if keys.is_empty() {
            let kid = match kid {
                Some(kid) => format!("the `kid` `{}`", excerpt(kid)),
                None => "no `kid`".to_owned(),
            };
            let reason = "no key of the identity fits the token, which has";
            return Err(format!("{reason} {kid} and the `alg` `{algorithm:?}`").into());
        }
        if !keys.iter().any(|key| jwt.may_be_signed_by(key)) {
            let iss = jwt.iss().and_then(Value::as_str).unwrap_or_default();
            let reason = "the key of the token belongs to another issuer than its `iss`";
            return Err(format!("{reason} `{}`", excerpt(iss)).into());
        }
        failures.record_cost();
        if let Some(signer) = keys.iter().find(|key| jwt.is_signed_by(key)) {
            return Ok(signer.clone());
        }
        // The issuer may have replaced the key under its `kid`.
        let replacements = match &self.keys {
            Keys::Published(published) => {
                let found = published.find_replacements(kid, algorithm, &keys, failures);
                found.await
            }
            Keys::Fixed(_) | Keys::Set(_) => Ok(Vec::new()),
        };
        let replacements = match replacements {
            // The current keys reject the token, so it is invalid even if new keys cannot be fetched.
            Err(KeyError::Unavailable(_)) => Vec::new(),
            replacements => replacements?,
        };
        replacements
            .into_iter()
            .find(|key| jwt.is_signed_by(key))
            .ok_or_else(|| "the token's signature does not match any key of the identity".into())
    }
}
