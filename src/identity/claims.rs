//! What the claims of a token must say, whoever vouches for them: its issuer's signature or its issuer's
//! answer.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{Claims, Denial, IdentityName, Subject, SubjectId};
use serde_json::Value;

use crate::settings::identities::{Leeway, RequiredClaims};

/// The rules of an identity.
pub(super) struct ClaimRules {
    pub(super) identity: IdentityName,
    pub(super) subject_claim: String,
    pub(super) required: RequiredClaims,
    pub(super) leeway: Leeway,
}

/// Claims that keep the rules, but for the time.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) subject: Arc<Subject>,
    /// In seconds since 1970: NumericDate of RFC 7519 may have a fraction.
    expires_at: Option<f64>,
    not_before: Option<f64>,
}

impl ClaimRules {
    /// Checks everything but the time.
    ///
    /// # Errors
    ///
    /// Which claim is at fault, for the log.
    pub(super) fn accept(&self, claims: Claims) -> Result<Accepted, String> {
        for (name, allowed) in &self.required.0 {
            let found = claims.get(name);
            if !found.is_some_and(|found| names_one_of(found, allowed.as_slice())) {
                return Err(format!("`{name}` is not what the config requires"));
            }
        }
        let expires_at = numeric_date(&claims, "exp")?;
        let not_before = numeric_date(&claims, "nbf")?;
        let subject_claim = &self.subject_claim;
        let id = match claims.get(subject_claim) {
            Some(Value::String(id)) => {
                SubjectId::parse(id).map_err(|fault| format!("`{subject_claim}` {fault}"))?
            }
            Some(_) => return Err(format!("`{subject_claim}` is no string")),
            None => return Err(format!("`{subject_claim}` is missing")),
        };
        let subject = Arc::new(Subject {
            id,
            identity: self.identity.clone(),
            session: false,
            claims,
            expires_at: expires_at.map(|expires_at| {
                Timestamp::from_second(expires_at as i64).unwrap_or(Timestamp::MAX)
            }),
        });
        Ok(Accepted {
            subject,
            expires_at,
            not_before,
        })
    }

    /// Whether the claims hold now.
    ///
    /// # Errors
    ///
    /// Why they do not.
    pub(super) fn check_time(&self, accepted: &Accepted, now: Timestamp) -> Result<(), Denial> {
        let now = now.as_millisecond() as f64 / 1000.0;
        let leeway = self.leeway.seconds() as f64;
        if accepted.expires_at.is_some_and(|end| now >= end + leeway) {
            Err(Denial::CredentialsExpired)
        } else if accepted
            .not_before
            .is_some_and(|begin| now < begin - leeway)
        {
            let reason = "`nbf` is in the future".to_owned();
            Err(Denial::InvalidCredentials(reason))
        } else {
            Ok(())
        }
    }
}

/// Whether a claim, a text or a list of them, is or has one of `allowed`.
pub(super) fn names_one_of(claim: &Value, allowed: &[String]) -> bool {
    let is_allowed = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| allowed.iter().any(|allowed| allowed == text))
    };
    match claim {
        Value::Array(values) => values.iter().any(is_allowed),
        value => is_allowed(value),
    }
}

fn numeric_date(claims: &Claims, name: &str) -> Result<Option<f64>, String> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
            _ => Err(format!("`{name}` is no time")),
        },
    }
}
