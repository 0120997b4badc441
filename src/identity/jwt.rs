//! JSON Web Tokens (RFC 7519), verified with keys that the config names.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, Fault, IdentityName, Presented};

use super::{
    claims::{Accepted, ClaimRules, mismatch},
    failures::Attempt,
    fault,
    kept_claims::KeptClaims,
    published_keys::{KeysUnavailable, NoKeys, PublishedKeys},
    token::{Token, UnverifiedJwt},
};
use crate::{
    cache::{Cache, Weigh, Weighed, cache},
    keys::{Key, KeySet},
    outbound::Outbound,
    settings::{JwtSettings, identities::TokenSource},
};

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
pub(super) struct Jwt {
    from: Vec<TokenSource>,
    algorithms: Vec<Algorithm>,
    ambient: bool,
    rules: ClaimRules,
    keys: Keys,
    verified: Cache<Verified>,
    clock: Arc<dyn Clock>,
}

/// The keys of an identity.
pub(super) enum Keys {
    /// Keys that the config names, whatever a token's `kid` says: each once for each algorithm.
    Fixed(Vec<Arc<Key>>),
    /// A set from a file.
    Set(KeySet),
    /// A set that the issuer publishes.
    Published(Arc<PublishedKeys>),
}

impl Keys {
    /// The keys that can have signed a token with this `kid` and this algorithm, which is a configured one.
    async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        attempt: &Attempt<'_>,
    ) -> Result<Vec<Arc<Key>>, NoKeys> {
        let fitting = |key: &&Arc<Key>| key.algorithm() == algorithm;
        Ok(match self {
            Self::Fixed(keys) => keys.iter().filter(fitting).cloned().collect(),
            Self::Set(set) => set.find(kid, algorithm).cloned().into_iter().collect(),
            Self::Published(keys) => {
                let found = keys.find(kid, algorithm, attempt).await?;
                found.into_iter().collect()
            }
        })
    }
}

/// A token whose signature and claims are right.
#[derive(Clone)]
pub(super) struct Verified {
    accepted: Accepted,
    key: Arc<Key>,
}

impl Weigh for Verified {
    fn heap(&self) -> usize {
        self.accepted.heap()
    }
}

/// A token that addresses the identity.
pub(super) enum Addressed {
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
    Unknown(KeysUnavailable),
    /// The keys that would tell may not be fetched.
    Refused(Denial),
}

impl From<String> for Unverified {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

impl From<&str> for Unverified {
    fn from(reason: &str) -> Self {
        Self::Bad(reason.to_owned())
    }
}

impl From<NoKeys> for Unverified {
    fn from(why: NoKeys) -> Self {
        match why {
            NoKeys::Unavailable(error) => Self::Unknown(error),
            NoKeys::Refused(denial) => Self::Refused(denial),
        }
    }
}

impl Jwt {
    /// Builds the identity `name`.
    #[must_use]
    pub(super) fn new(
        name: IdentityName,
        settings: &JwtSettings,
        keys: Keys,
        kept: KeptClaims,
        outbound: &Outbound,
    ) -> Self {
        let audience = settings.audience.as_ref();
        let issuers = settings.issuer.as_ref();
        Self {
            from: settings.from.clone(),
            algorithms: settings.algorithms.clone(),
            ambient: settings.ambient,
            rules: ClaimRules {
                identity: name,
                issuers: issuers.map(|issuers| issuers.clone()),
                audience: audience.map(|audience| audience.clone()),
                required: settings.required_claims.clone(),
                allowed: settings.allowed_claims.clone(),
                must_expire: true,
                subject_claim: settings.subject_claim.clone(),
                subject_prefix: settings.subject_prefix.clone(),
                leeway: settings.leeway,
                kept,
            },
            keys,
            verified: cache(outbound.caches.tokens),
            clock: outbound.clock.clone(),
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

    /// The keys that tokens are verified with.
    #[must_use]
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether a token addresses this identity: by its algorithm, and by its issuer if the config names issuers.
    pub(super) fn addressed_by(&self, token: &Token<'_>) -> Option<Addressed> {
        if let Some(verified) = self.verified.get(token.digest()) {
            return Some(Addressed::Remembered(verified.value));
        }
        let jwt = token.jwt()?;
        let issuers = self.rules.issuers.as_ref();
        let is_addressed = self.algorithms.contains(&jwt.algorithm())
            && issuers.is_none_or(|issuers| jwt.is_of(issuers));
        is_addressed.then_some(Addressed::New)
    }

    /// Why a token does not address this identity.
    pub(super) fn why_not(&self, token: &Token<'_>) -> String {
        let reason = match token.jwt() {
            None => "the token is not a JWT of a known `alg`".to_owned(),
            Some(jwt) if !self.algorithms.contains(&jwt.algorithm()) => {
                let name = |algorithm: &Algorithm| format!("{algorithm:?}");
                let expected: Vec<_> = self.algorithms.iter().map(name).collect();
                let found = name(&jwt.algorithm()).into();
                mismatch("alg", Some(&found), expected.iter().map(String::as_str))
            }
            Some(jwt) => {
                let issuers = self.rules.issuers.iter();
                let issuers = issuers.flat_map(|issuers| issuers.iter());
                mismatch("iss", jwt.issuer(), issuers)
            }
        };
        format!("identity `{}`: {reason}", self.rules.identity)
    }

    /// Judges a token that addresses this identity.
    pub(super) async fn judge(
        &self,
        token: &Token<'_>,
        addressed: Addressed,
        attempt: &Attempt<'_>,
    ) -> Result<Presented, Fault> {
        let verified = match addressed {
            Addressed::Remembered(verified) if !verified.key.is_retired() => verified,
            // Boxed, so that returning users' requests do not carry room for it.
            Addressed::Remembered(_) | Addressed::New => {
                match Box::pin(self.verify(token, attempt)).await {
                    Ok(verified) => {
                        self.remember(token, &verified);
                        verified
                    }
                    Err(Unverified::Refused(denial)) => return Ok(Presented::Refused(denial)),
                    Err(Unverified::Bad(reason)) => {
                        attempt.fail();
                        return Ok(Presented::Refused(Denial::InvalidCredentials(reason)));
                    }
                    Err(Unverified::Unknown(error)) => {
                        return Err(fault(&self.rules.identity, error));
                    }
                }
            }
        };
        let timely = self.rules.check_time(&verified.accepted, self.clock.now());
        if matches!(timely, Err(Denial::CredentialsExpired)) {
            self.verified.remove(token.digest());
        }
        Ok(match timely {
            Ok(()) => Presented::Subject(verified.accepted.subject),
            Err(denial) => {
                if denial != Denial::CredentialsExpired {
                    attempt.fail();
                }
                Presented::Refused(denial)
            }
        })
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
        let accepted = self.rules.accept(&claims)?;
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
