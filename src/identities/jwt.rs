//! `kind = "jwt"`: JSON Web Tokens (RFC 7519), verified with keys that the config names.

mod keys;
mod settings;

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use policies::{Clock, Denial, Fault, IdentityName, Presented};

use self::keys::Keys;
pub(super) use self::settings::JwtSettings;
use super::{
    case::Case,
    claims::{Accepted, KeptClaims, mismatch},
    credential::TokenSource,
    issuer::Issuers,
    keys::{Key, NoKeys, PublishedKeys},
    kind::{Build, Identity, IdentityKind, Judgement, fault},
    limits::Attempt,
    profile::{CacheKind, Place, Profile, Takes},
    section::Section,
    token::{Token, UnverifiedJwt},
};
use crate::outbound::cache::{Cache, CacheEntry, HeapSize, new_cache};

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
            cache: Some(CacheKind::Tokens),
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
                verified: new_cache(context.outbound.caches.tokens),
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

impl HeapSize for Verified {
    fn heap_size(&self) -> usize {
        self.accepted.heap_size()
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
        let verified = CacheEntry::new(verified.clone());
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
