//! The checks of a token's claims, which come from its payload or from its issuer, and the filter that keeps claims for
//! policies.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::{
    ClaimPath, Claims, Denial, IdentityName, Interval, Reads, Subject, excerpt, id_text,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{
    claim_values::{ClaimValues, RequiredScopes, has_one, mismatch},
    issuer::{Issuers, SubjectPrefix},
    section::Section,
};
use crate::outbound::cache::HeapSize;

/// The allowed clock skew: a duration, or `"0s"`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(with = "Interval")]
pub(super) struct Leeway(Duration);

impl Default for Leeway {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

impl<'de> Deserialize<'de> for Leeway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = toml::Value::deserialize(deserializer)?;
        if matches!(text.as_str(), Some("0" | "0s")) {
            return Ok(Self(Duration::ZERO));
        }
        let leeway = Interval::deserialize(text).map_err(D::Error::custom)?;
        if leeway <= Interval::from_secs(600) {
            Ok(Self(leeway.get()))
        } else {
            Err(D::Error::custom("must be at most 10 minutes"))
        }
    }
}

pub(super) fn default_subject_claim() -> ClaimPath {
    ClaimPath::parse("sub").expect("`sub` names a claim")
}

/// The settings of an identity that check claims.
#[derive(Clone, Copy)]
pub(super) struct ClaimRules<'a> {
    pub(super) issuers: Option<&'a Issuers>,
    pub(super) audience: Option<&'a [String]>,
    pub(super) required: &'a ClaimValues,
    pub(super) allowed: &'a ClaimValues,
    pub(super) scopes: &'a RequiredScopes,
    pub(super) requires_exp: bool,
    pub(super) subject_claim: &'a ClaimPath,
    pub(super) subject_prefix: &'a SubjectPrefix,
}

/// Claims that passed all checks except those of the time.
#[derive(Clone)]
pub(super) struct ValidClaims {
    pub(super) subject: Arc<Subject>,
    /// In seconds since 1970. A NumericDate (RFC 7519) may have a fraction.
    expires_at: Option<f64>,
    not_before: Option<f64>,
}

impl HeapSize for ValidClaims {
    fn heap_size(&self) -> usize {
        self.subject.heap_size()
    }
}

impl ClaimRules<'_> {
    /// Reports settings that make no sense.
    pub(super) fn check_settings(&self, section: &mut Section<'_>) {
        if self.audience.is_some_and(<[_]>::is_empty) {
            section.fault("audience", "must name at least one audience");
        }
        // With `{tid}` and without a restriction, anyone with a tenant of their own could sign in.
        let is_restricted = |claims: &ClaimValues| claims.restrict("tid");
        if self.issuers.is_some_and(Issuers::have_tid)
            && ![self.required, self.allowed].into_iter().any(is_restricted)
        {
            let message = "accepts every tenant; write yours, for example `allowed_claims = { tid = [\"8a7f...\"] }`";
            section.fault("issuer", message);
        }
        if self.subject_prefix.has_issuer() && self.issuers.is_none() {
            let message = "`{iss}` needs `issuer`, which says whose tokens are accepted";
            section.fault("subject_prefix", message);
        }
    }

    /// Checks everything except the time.
    ///
    /// # Errors
    ///
    /// Which claim is invalid, for the log.
    pub(super) fn validate(
        &self,
        identity: &IdentityName,
        filter: &ClaimFilter,
        claims: &Claims,
    ) -> Result<ValidClaims, String> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if let Some(issuers) = self.issuers {
            let tid = claims.get("tid").and_then(Value::as_str);
            if !issuer.is_some_and(|issuer| issuers.contains(issuer, tid)) {
                return Err(mismatch("iss", claims.get("iss"), issuers.iter()));
            }
        }
        if let Some(audience) = self.audience {
            let found = claims.get("aud");
            let is_expected = |value: &Value| {
                value
                    .as_str()
                    .is_some_and(|text| audience.iter().any(|expected| expected == text))
            };
            if !found.is_some_and(|found| has_one(found, is_expected)) {
                return Err(mismatch("aud", found, audience.iter().map(String::as_str)));
            }
        }
        self.required.check_required(claims)?;
        self.allowed.check_allowed(claims)?;
        self.scopes.check(claims)?;
        let expires_at = numeric_date(claims, "exp")?;
        if self.requires_exp && expires_at.is_none() {
            return Err("the token has no `exp`".to_owned());
        }
        let not_before = numeric_date(claims, "nbf")?;
        let claim = self.subject_claim;
        let id = claim.get(claims).ok_or_else(|| claim.missing())?;
        let id = id_text(id)
            .ok_or_else(|| format!("the token's `{claim}` is not a string or an integer"))?;
        let id = self.subject_prefix.apply(&id, issuer);
        let id = id.map_err(|fault| format!("the token's `{claim}` {fault}"))?;
        let subject = Arc::new(Subject {
            id,
            identity: identity.clone(),
            session: false,
            claims: filter.apply(claims)?,
            expires_at: expires_at.map(|expires_at| {
                Timestamp::from_second(expires_at as i64).unwrap_or(Timestamp::MAX)
            }),
        });
        Ok(ValidClaims {
            subject,
            expires_at,
            not_before,
        })
    }
}

impl ValidClaims {
    /// Checks `exp` and `nbf`.
    ///
    /// # Errors
    ///
    /// If the claims are expired or not valid yet.
    pub(super) fn check_time(&self, now: Timestamp, leeway: Leeway) -> Result<(), Denial> {
        let now = now.as_millisecond() as f64 / 1000.0;
        let leeway = leeway.0.as_secs() as f64;
        if let Some(end) = self.expires_at.filter(|end| now >= end + leeway) {
            let ago = Duration::try_from_secs_f64(now - end).unwrap_or(Duration::MAX);
            return Err(Denial::CredentialsExpired(ago));
        }
        if let Some(start) = self.not_before.filter(|start| now < start - leeway) {
            let seconds = (start - now).ceil();
            let reason = format!("the token's `nbf` is {seconds} seconds in the future");
            return Err(Denial::InvalidCredentials(reason));
        }
        Ok(())
    }
}

fn numeric_date(claims: &Claims, name: &str) -> Result<Option<f64>, String> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
            _ => Err(format!("the token's `{name}` is not a time")),
        },
    }
}

const MAX_NESTING: usize = 16;

/// The memory of the kept claims. It is much larger than their text: an object with one member takes about a kilobyte.
const MAX_KEPT_BYTES: usize = 128 << 10;

/// Keeps the claims that policies and sessions read, within limits.
#[derive(Clone)]
pub struct ClaimFilter(Arc<Reads>);

impl ClaimFilter {
    pub(super) fn new(reads: &Reads) -> Self {
        Self(Arc::new(reads.clone()))
    }

    /// Returns the claims to keep.
    ///
    /// # Errors
    ///
    /// If they exceed a limit, for the log.
    pub fn apply(&self, claims: &Claims) -> Result<Claims, String> {
        let kept = self.0.of(claims);
        for (name, value) in &kept {
            if is_deeper(value, MAX_NESTING) {
                return Err(format!(
                    "the claim `{}` is nested deeper than {MAX_NESTING} levels",
                    excerpt(name)
                ));
            }
        }
        if kept.heap_size() > MAX_KEPT_BYTES {
            return Err(format!(
                "the claims that policies read take more than {} KiB of memory",
                MAX_KEPT_BYTES >> 10
            ));
        }
        Ok(kept)
    }
}

/// Whether lists and objects are nested on more than `levels` levels.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => return false,
    };
    levels == 0 || inner.any(|value| is_deeper(value, levels - 1))
}
