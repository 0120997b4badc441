//! What the claims of a token must say, whether its issuer signed them or answered with them.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{Claims, Denial, IdentityName, Subject};
use serde_json::Value;

use super::kept_claims::KeptClaims;
use crate::{
    cache::Weigh,
    settings::identities::{
        ClaimValues, Leeway,
        issuer::{Issuers, SubjectPrefix},
    },
};

/// The longest part of a claim that the log shows, in characters.
const SHOWN: usize = 100;

/// The rules of an identity.
pub(super) struct ClaimRules {
    pub(super) identity: IdentityName,
    pub(super) issuers: Option<Issuers>,
    pub(super) audience: Option<Vec<String>>,
    pub(super) required: ClaimValues,
    pub(super) allowed: ClaimValues,
    /// Whether `exp` must be there.
    pub(super) must_expire: bool,
    pub(super) subject_claim: String,
    pub(super) subject_prefix: SubjectPrefix,
    pub(super) leeway: Leeway,
    pub(super) kept: KeptClaims,
}

/// Claims that keep the rules, except for the time.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) subject: Arc<Subject>,
    /// In seconds since 1970: NumericDate of RFC 7519 may have a fraction.
    expires_at: Option<f64>,
    not_before: Option<f64>,
}

impl Weigh for Accepted {
    fn heap(&self) -> usize {
        self.subject.heap()
    }
}

impl ClaimRules {
    /// Checks everything but the time.
    ///
    /// # Errors
    ///
    /// Which claim is at fault, for the log.
    pub(super) fn accept(&self, claims: &Claims) -> Result<Accepted, String> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if let Some(issuers) = &self.issuers {
            let tid = claims.get("tid").and_then(Value::as_str);
            if !issuer.is_some_and(|issuer| issuers.include(issuer, tid)) {
                return Err(mismatch("iss", claims.get("iss"), issuers.iter()));
            }
        }
        if let Some(audience) = &self.audience {
            check(claims, "aud", audience)?;
        }
        for (name, values) in &self.required.0 {
            check(claims, name, values.as_slice())?;
        }
        for (name, values) in &self.allowed.0 {
            if claims.contains_key(name) {
                check(claims, name, values.as_slice())?;
            }
        }
        let expires_at = numeric_date(claims, "exp")?;
        if self.must_expire && expires_at.is_none() {
            return Err("the token has no `exp`".to_owned());
        }
        let not_before = numeric_date(claims, "nbf")?;
        let claim = &self.subject_claim;
        let id = match claims.get(claim) {
            Some(Value::String(id)) => {
                let id = self.subject_prefix.apply(id, issuer);
                id.map_err(|fault| format!("the token's `{claim}` {fault}"))?
            }
            Some(_) => return Err(format!("the token's `{claim}` is not a string")),
            None => return Err(format!("the token has no `{claim}`")),
        };
        let subject = Arc::new(Subject {
            id,
            identity: self.identity.clone(),
            session: false,
            claims: self.kept.of(claims)?,
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
            let reason = "the token's `nbf` is in the future".to_owned();
            Err(Denial::InvalidCredentials(reason))
        } else {
            Ok(())
        }
    }
}

/// Checks that a claim, a text or a list, is or contains one of `expected`.
fn check(claims: &Claims, name: &str, expected: &[String]) -> Result<(), String> {
    let is_expected = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| expected.iter().any(|expected| expected == text))
    };
    let found = claims.get(name);
    let holds = match found {
        Some(Value::Array(values)) => values.iter().any(is_expected),
        Some(value) => is_expected(value),
        None => false,
    };
    if holds {
        Ok(())
    } else {
        let expected = expected.iter().map(String::as_str);
        Err(mismatch(name, found, expected))
    }
}

/// What is wrong with a claim, in words for the log.
pub(super) fn mismatch<'a>(
    name: &str,
    found: Option<&Value>,
    expected: impl Iterator<Item = &'a str>,
) -> String {
    let found = match found {
        None => format!("the token has no `{name}`"),
        Some(Value::String(text)) => format!("the token's `{name}` is `{}`", shown(text)),
        Some(value) => format!("the token's `{name}` is `{}`", shown(&value.to_string())),
    };
    let expected: Vec<_> = expected.map(|text| format!("`{text}`")).collect();
    format!("{found}, expected {}", expected.join(" or "))
}

/// The beginning of a text that a client wrote.
fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}

fn numeric_date(claims: &Claims, name: &str) -> Result<Option<f64>, String> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
            _ => Err(format!("the token's `{name}` is not a time")),
        },
    }
}
