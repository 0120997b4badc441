//! What the claims of a token must say, whether its issuer signed them or answered with them, and which of them are kept.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use policies::{Claims, Denial, IdentityName, Interval, Reads, Subject};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{
    issuer::{Issuers, OneOrMany, SubjectPrefix},
    section::Section,
};
use crate::outbound::cache::HeapSize;

/// The longest part of a claim that the log shows, in characters.
const SHOWN: usize = 100;

/// Values of claims: for each claim the value, or the values, that it may have. A claim that is a list must contain one
/// of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct ClaimValues(BTreeMap<String, OneOrMany>);

/// How far two clocks may be apart: a duration, or `"0s"`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(with = "Interval")]
pub(super) struct Leeway(Option<Interval>);

impl Default for Leeway {
    fn default() -> Self {
        Self(Some(Interval::from_secs(30)))
    }
}

impl Leeway {
    /// In whole seconds.
    pub(super) fn seconds(self) -> u64 {
        self.0.map_or(0, |leeway| leeway.get().as_secs())
    }
}

impl<'de> Deserialize<'de> for Leeway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = toml::Value::deserialize(deserializer)?;
        if matches!(text.as_str(), Some("0" | "0s")) {
            return Ok(Self(None));
        }
        let leeway = Interval::deserialize(text).map_err(D::Error::custom)?;
        if leeway <= Interval::from_secs(600) {
            Ok(Self(Some(leeway)))
        } else {
            Err(D::Error::custom("must be at most 10 minutes"))
        }
    }
}

/// The claim that holds the subject's id, if an identity does not name one.
pub(super) fn default_subject_claim() -> String {
    "sub".to_owned()
}

/// The rules of an identity, as its settings have them.
#[derive(Clone, Copy)]
pub(super) struct ClaimRules<'a> {
    pub(super) issuers: Option<&'a Issuers>,
    pub(super) audience: Option<&'a [String]>,
    pub(super) required: &'a ClaimValues,
    pub(super) allowed: &'a ClaimValues,
    /// Whether `exp` must be there.
    pub(super) must_expire: bool,
    pub(super) subject_claim: &'a str,
    pub(super) subject_prefix: &'a SubjectPrefix,
}

/// Claims that keep the rules, except for the time.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) subject: Arc<Subject>,
    /// In seconds since 1970: NumericDate of RFC 7519 may have a fraction.
    expires_at: Option<f64>,
    not_before: Option<f64>,
}

impl HeapSize for Accepted {
    fn heap_size(&self) -> usize {
        self.subject.heap_size()
    }
}

impl ClaimRules<'_> {
    /// Notes the rules that make no sense.
    pub(super) fn check(&self, section: &mut Section<'_>) {
        if self.audience.is_some_and(<[_]>::is_empty) {
            section.fault("audience", "must name at least one");
        }
        // An issuer that takes a claim takes the tokens of everyone who can choose that claim.
        let is_restricted = |claims: &ClaimValues| claims.0.contains_key("tid");
        if self.issuers.is_some_and(Issuers::take_tid)
            && ![self.required, self.allowed].into_iter().any(is_restricted)
        {
            let message = "takes every tenant: name yours, for example `allowed_claims = { tid = [\"8a7f...\"] }`";
            section.fault("issuer", message);
        }
        if self.subject_prefix.takes_issuer() && self.issuers.is_none() {
            let message = "`{iss}` needs `issuer`, which says whose tokens are taken";
            section.fault("subject_prefix", message);
        }
    }

    /// Checks everything but the time.
    ///
    /// # Errors
    ///
    /// Which claim is at fault, for the log.
    pub(super) fn accept(
        &self,
        identity: &IdentityName,
        kept: &KeptClaims,
        claims: &Claims,
    ) -> Result<Accepted, String> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if let Some(issuers) = self.issuers {
            let tid = claims.get("tid").and_then(Value::as_str);
            if !issuer.is_some_and(|issuer| issuers.include(issuer, tid)) {
                return Err(mismatch("iss", claims.get("iss"), issuers.iter()));
            }
        }
        if let Some(audience) = self.audience {
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
        let claim = self.subject_claim;
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
            identity: identity.clone(),
            session: false,
            claims: kept.of(claims)?,
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
}

impl Accepted {
    /// Whether the claims hold now.
    ///
    /// # Errors
    ///
    /// Why they do not.
    pub(super) fn check_time(&self, now: Timestamp, leeway: Leeway) -> Result<(), Denial> {
        let now = now.as_millisecond() as f64 / 1000.0;
        let leeway = leeway.seconds() as f64;
        if self.expires_at.is_some_and(|end| now >= end + leeway) {
            Err(Denial::CredentialsExpired)
        } else if self.not_before.is_some_and(|begin| now < begin - leeway) {
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
pub(super) fn shown(text: &str) -> String {
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

/// How deep a claim that is kept may be nested.
const MAX_NESTING: usize = 16;

/// What the claims that are kept may take in memory, in bytes. That is much more than their text has: an object of one
/// member takes about a kilobyte.
const MAX_BYTES: usize = 128 << 10;

/// Keeps the part of the claims that policies and sessions read, within bounds.
#[derive(Clone)]
pub struct KeptClaims(Arc<Reads>);

impl KeptClaims {
    pub(super) fn new(reads: &Reads) -> Self {
        Self(Arc::new(reads.clone()))
    }

    /// The part of `claims` that is read.
    ///
    /// # Errors
    ///
    /// What is beyond the bounds, for the log.
    pub fn of(&self, claims: &Claims) -> Result<Claims, String> {
        let kept = self.0.of(claims);
        for (name, value) in &kept {
            if is_deeper(value, MAX_NESTING) {
                return Err(format!(
                    "the claim `{}` is nested deeper than {MAX_NESTING} levels",
                    shown(name)
                ));
            }
        }
        if kept.heap_size() > MAX_BYTES {
            return Err(format!(
                "the claims that policies read take more than {} KiB of memory",
                MAX_BYTES >> 10
            ));
        }
        Ok(kept)
    }
}

/// Whether lists and objects stand within each other on more than `levels` levels.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => return false,
    };
    levels == 0 || inner.any(|value| is_deeper(value, levels - 1))
}
