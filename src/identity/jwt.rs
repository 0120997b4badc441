//! JSON Web Tokens (RFC 7519), verified with a key that the config names.

use std::sync::Arc;

use actix_web::HttpRequest;
use aws_lc_rs::digest;
use jiff::Timestamp;
use jsonwebtoken::{Validation, decode, decode_header};
use policies::{Claims, Clock, Denial, IdentityName, Presented, Subject, SubjectId};
use quick_cache::sync::Cache;
use serde_json::Value;

use super::{
    cross_site::CrossSite,
    lookup::{self, Found},
};
use crate::settings::{JwtSettings, VerificationKey, identities::TokenSource};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How many verified tokens are remembered.
const REMEMBERED_TOKENS: usize = 10_000;

/// Verifies tokens.
///
/// The algorithm and the key come from the config, never from the token. A token whose signature was
/// verified is remembered by its SHA-256, so that returning users cost no signature; its times are checked
/// every time.
pub struct Jwt {
    name: IdentityName,
    from: Vec<TokenSource>,
    subject_claim: String,
    leeway: f64,
    key: VerificationKey,
    validation: Validation,
    verified: Cache<[u8; 32], Verified>,
    clock: Arc<dyn Clock>,
}

/// A token whose signature, issuer and audience are right.
#[derive(Clone)]
struct Verified {
    subject: Arc<Subject>,
    /// In seconds since 1970: NumericDate of RFC 7519 may have a fraction.
    expires_at: f64,
    not_before: f64,
}

impl Jwt {
    /// Builds the identity `name`.
    #[must_use]
    pub fn new(
        name: IdentityName,
        settings: &JwtSettings,
        key: VerificationKey,
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
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &settings.audience {
            validation.set_audience(audience.get_ref());
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self {
            name,
            from: settings.from.get_ref().clone(),
            subject_claim: settings.subject_claim.clone(),
            leeway: settings.leeway.seconds() as f64,
            key,
            validation,
            verified: Cache::new(REMEMBERED_TOKENS),
            clock,
        }
    }

    /// Takes the token from the first place that has one, and judges it.
    pub(super) fn present(&self, request: &HttpRequest, cross_site: &CrossSite) -> Presented {
        for source in &self.from {
            let (found, by_itself) = match source {
                TokenSource::Bearer => (lookup::bearer(request), false),
                TokenSource::Header(name) => (lookup::in_header(request, name), false),
                TokenSource::Cookie(name) => (lookup::cookie(request, name.as_str()), true),
            };
            let judged = match found {
                Found::Nothing => continue,
                Found::Unusable(reason) => Err(Denial::InvalidCredentials(reason.to_owned())),
                Found::One(token) if by_itself => {
                    cross_site.check(request).and_then(|()| self.judge(token))
                }
                Found::One(token) => self.judge(token),
            };
            return judged.map_or_else(Presented::Refused, Presented::Subject);
        }
        Presented::Nothing
    }

    fn judge(&self, token: &str) -> Result<Arc<Subject>, Denial> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().unwrap_or_default();
        let verified = match self.verified.get(&hash) {
            Some(verified) => verified,
            None => {
                let verified = self.verify(token).map_err(Denial::InvalidCredentials)?;
                self.verified.insert(hash, verified.clone());
                verified
            }
        };
        let now = self.clock.now().as_millisecond() as f64 / 1000.0;
        if now >= verified.expires_at + self.leeway {
            self.verified.remove(&hash);
            Err(Denial::CredentialsExpired)
        } else if now < verified.not_before - self.leeway {
            Err(Denial::InvalidCredentials(
                "`nbf` is in the future".to_owned(),
            ))
        } else {
            Ok(verified.subject)
        }
    }

    /// Verifies everything but the times.
    fn verify(&self, token: &str) -> Result<Verified, String> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("the token is too long".to_owned());
        }
        let header = decode_header(token).map_err(|error| error.to_string())?;
        if header.crit.is_some() {
            return Err("the header has `crit`".to_owned());
        }
        let claims = decode::<Claims>(token, &self.key.0, &self.validation)
            .map_err(|error| error.to_string())?
            .claims;
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
                _ => Err(format!("`{name}` is no time")),
            },
        };
        let expires_at = time("exp")?.ok_or("`exp` is missing")?;
        let not_before = time("nbf")?.unwrap_or(f64::NEG_INFINITY);
        let id = match claims.get(&self.subject_claim) {
            Some(Value::String(id)) => {
                SubjectId::parse(id).map_err(|fault| format!("`{}` {fault}", self.subject_claim))?
            }
            Some(_) => return Err(format!("`{}` is no string", self.subject_claim)),
            None => return Err(format!("`{}` is missing", self.subject_claim)),
        };
        let subject = Arc::new(Subject {
            id,
            identity: self.name.clone(),
            claims,
            expires_at: Some(Timestamp::from_second(expires_at as i64).unwrap_or(Timestamp::MAX)),
        });
        Ok(Verified {
            subject,
            expires_at,
            not_before,
        })
    }
}
