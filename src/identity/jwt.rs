//! JSON Web Tokens (RFC 7519), verified with keys that the config names.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use policies::{Claims, Clock, Denial, Fault, IdentityName, Presented, Subject};
use quick_cache::sync::Cache;

use super::{
    claims::{Accepted, ClaimRules},
    cross_site::CrossSite,
    fault, lookup,
    published_keys::{KeysUnavailable, PublishedKeys},
    request_view::RequestView,
};
use crate::{
    digest::{Digest, digest},
    keys::{Key, KeySet},
    settings::{JwtSettings, identities::TokenSource},
};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How many verified tokens are remembered.
const REMEMBERED_TOKENS: usize = 10_000;

/// Verifies tokens.
///
/// The algorithms and the keys come from the config, never from the token. A token whose signature was
/// verified is remembered by its SHA-256 for as long as its key stays in use, so that returning users cost no
/// signature; its times are checked every time.
pub(super) struct Jwt {
    from: Vec<TokenSource>,
    rules: ClaimRules,
    keys: Keys,
    validation: Validation,
    verified: Cache<Digest, Verified>,
    clock: Arc<dyn Clock>,
}

/// The keys of an identity.
pub(super) enum Keys {
    /// One that the config names, whatever a token's `kid` says: once for each algorithm.
    Fixed(Vec<Arc<Key>>),
    /// A set from a file.
    Set(KeySet),
    /// A set that the issuer publishes.
    Published(Arc<PublishedKeys>),
}

impl Keys {
    /// The key that `kid` names for an algorithm, which is a configured one.
    async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<Arc<Key>>, KeysUnavailable> {
        match self {
            Self::Fixed(keys) => {
                let key = keys.iter().find(|key| key.algorithm() == algorithm);
                Ok(key.cloned())
            }
            Self::Set(set) => Ok(set.find(kid, algorithm).cloned()),
            Self::Published(keys) => keys.find(kid, algorithm).await,
        }
    }
}

/// A token whose signature, issuer and audience are right.
#[derive(Clone)]
struct Verified {
    accepted: Accepted,
    key: Arc<Key>,
}

/// Why a token is not verified.
enum Unverified {
    /// It is no good.
    Bad(String),
    /// Nobody can tell.
    Unknown(KeysUnavailable),
}

impl From<String> for Unverified {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

impl From<KeysUnavailable> for Unverified {
    fn from(error: KeysUnavailable) -> Self {
        Self::Unknown(error)
    }
}

impl Jwt {
    /// Builds the identity `name`.
    #[must_use]
    pub(super) fn new(
        name: IdentityName,
        settings: &JwtSettings,
        keys: Keys,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut validation = Validation::default();
        validation
            .algorithms
            .clone_from(settings.algorithms.get_ref());
        // Times are checked here, by the injected clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = settings.audience.is_some();
        let mut required = vec!["exp"];
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer.get_ref()]);
            required.push("iss");
        }
        if let Some(audience) = &settings.audience {
            validation.set_audience(audience.get_ref());
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self {
            from: settings.from.get_ref().clone(),
            rules: ClaimRules {
                identity: name,
                subject_claim: settings.subject_claim.clone(),
                required: settings.required_claims.clone(),
                leeway: settings.leeway,
            },
            keys,
            validation,
            verified: Cache::new(REMEMBERED_TOKENS),
            clock,
        }
    }

    /// The keys that tokens are verified with.
    #[must_use]
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes the token from the first place that has one, and judges it.
    pub(super) async fn present(
        &self,
        request: &dyn RequestView,
        cross_site: &CrossSite,
    ) -> Result<Presented, Fault> {
        let token = match lookup::credential(request, &self.from, cross_site) {
            Ok(Some(token)) => token,
            Ok(None) => return Ok(Presented::Nothing),
            Err(denial) => return Ok(Presented::Refused(denial)),
        };
        let judged = self.judge(token).await;
        let judged = judged.map_err(|error| fault(&self.rules.identity, error))?;
        Ok(judged.map_or_else(Presented::Refused, Presented::Subject))
    }

    async fn judge(&self, token: &str) -> Result<Result<Arc<Subject>, Denial>, KeysUnavailable> {
        let hash = digest([token]);
        let remembered = self.verified.get(&hash);
        let verified = match remembered.filter(|verified| !verified.key.is_retired()) {
            Some(verified) => verified,
            // Boxed, so that returning users' requests do not carry room for it.
            None => match Box::pin(self.verify(token)).await {
                Ok(verified) => {
                    self.verified.insert(hash, verified.clone());
                    verified
                }
                Err(Unverified::Bad(reason)) => {
                    return Ok(Err(Denial::InvalidCredentials(reason)));
                }
                Err(Unverified::Unknown(error)) => return Err(error),
            },
        };
        let timely = self.rules.check_time(&verified.accepted, self.clock.now());
        if matches!(timely, Err(Denial::CredentialsExpired)) {
            self.verified.remove(&hash);
        }
        Ok(timely.map(|()| verified.accepted.subject))
    }

    /// Verifies everything but the times.
    async fn verify(&self, token: &str) -> Result<Verified, Unverified> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the token is too long".to_owned().into());
        }
        let header = decode_header(token).map_err(|error| error.to_string())?;
        if header.crit.is_some() {
            return Err("the header has `crit`".to_owned().into());
        }
        if !self.validation.algorithms.contains(&header.alg) {
            return Err("the algorithm is not a configured one".to_owned().into());
        }
        let kid = header.kid.as_deref();
        let key = self.keys.find(kid, header.alg).await?;
        let key = key.ok_or_else(|| "no key of the issuer has the token's `kid`".to_owned())?;
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let claims = decode::<Claims>(token, key.decoding(), &validation)
            .map_err(|error| error.to_string())?
            .claims;
        let accepted = self.rules.accept(claims)?;
        Ok(Verified { accepted, key })
    }
}
