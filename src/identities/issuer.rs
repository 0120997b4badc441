//! `issuer` and `subject_prefix`: the issuers whose tokens an identity accepts, and how it distinguishes their subjects.

use std::fmt;

use policies::{InvalidId, SubjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::config::service_url::PathSegment;

/// The placeholder for the claim `tid` in an issuer.
pub(super) const TID: &str = "{tid}";

/// The placeholder for the token's issuer in a subject prefix.
const ISS: &str = "{iss}";

/// One string or a list of strings.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub(super) enum OneOrMany {
    /// One string.
    One(String),
    /// Several strings.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self::One(text)),
            value @ toml::Value::Array(_) => match Vec::deserialize(value) {
                Ok(texts) if !Vec::is_empty(&texts) => Ok(Self::Many(texts)),
                Ok(_) => Err(D::Error::custom("must name at least one value")),
                Err(_) => Err(D::Error::custom("must be a string or a list of strings")),
            },
            _ => Err(D::Error::custom("must be a string or a list of strings")),
        }
    }
}

/// The issuers that `iss` may have: one or a list.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Issuers(#[schemars(with = "OneOrMany")] Vec<Issuer>);

impl Issuers {
    /// Whether a token with these claims comes from one of the issuers.
    #[must_use]
    pub fn contains(&self, iss: &str, tid: Option<&str>) -> bool {
        self.0.iter().any(|issuer| issuer.matches(iss, tid))
    }

    /// Whether every token of `others` is also a token of these issuers.
    #[must_use]
    pub fn cover(&self, others: &Self) -> bool {
        let is_covered = |other: &Issuer| self.0.iter().any(|issuer| issuer.covers(other));
        others.0.iter().all(is_covered)
    }

    /// The issuer, if there is only one and it has no placeholder.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [issuer] if !issuer.has_tid() => Some(&issuer.0),
            _ => None,
        }
    }

    /// Whether one of the issuers has the placeholder `{tid}`.
    #[must_use]
    pub fn have_tid(&self) -> bool {
        self.0.iter().any(Issuer::has_tid)
    }

    /// The issuers as the config has them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|issuer| issuer.0.as_str())
    }
}

/// The issuers in a sentence.
impl fmt::Display for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: Vec<_> = self.iter().map(|issuer| format!("`{issuer}`")).collect();
        f.write_str(&issuers.join(" or "))
    }
}

impl<'de> Deserialize<'de> for Issuers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let issuers = OneOrMany::deserialize(deserializer)?;
        let issuers = issuers.as_slice().iter();
        let issuers: Result<_, String> = issuers.map(|text| Issuer::try_from(&**text)).collect();
        issuers.map(Self).map_err(D::Error::custom)
    }
}

/// An issuer, which may have the placeholder `{tid}`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issuer(String);

impl Issuer {
    fn has_tid(&self) -> bool {
        self.0.contains(TID)
    }

    fn matches(&self, iss: &str, tid: Option<&str>) -> bool {
        match self.0.split_once(TID) {
            None => self.0 == iss,
            Some(around) => tid.is_some() && between(around, iss) == tid,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match self.0.split_once(TID) {
            None => self == other,
            Some(around) => between(around, &other.0).is_some(),
        }
    }
}

/// Returns the part of `text` between its start and its end.
fn between<'a>((begin, end): (&str, &str), text: &'a str) -> Option<&'a str> {
    text.strip_prefix(begin)?.strip_suffix(end)
}

impl TryFrom<&str> for Issuer {
    type Error = String;

    fn try_from(text: &str) -> Result<Self, String> {
        let literal = text.replacen(TID, "", 1);
        if text.is_empty() {
            Err("must not be empty".to_owned())
        } else if literal.contains(['{', '}']) {
            Err(format!(
                "`{text}`: `{TID}` is the only placeholder, and must occur at most once"
            ))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// The prefix of a subject's id, so that equal ids of two issuers are two users. `{iss}` is the token's issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct SubjectPrefix(String);

impl SubjectPrefix {
    /// Whether the prefix has the placeholder `{iss}`.
    #[must_use]
    pub fn has_issuer(&self) -> bool {
        self.0.contains(ISS)
    }

    /// Whether an id with this prefix can be a segment of a URL path. The URL of an issuer cannot.
    #[must_use]
    pub fn fits_path(&self) -> bool {
        PathSegment::parse(&(self.0.replace(ISS, "https://") + "x")).is_some()
    }

    /// Returns the subject id for `id` of `issuer`.
    ///
    /// # Errors
    ///
    /// If the id is invalid or too long with the prefix.
    pub fn apply(&self, id: &str, issuer: Option<&str>) -> Result<SubjectId, InvalidId> {
        if self.0.is_empty() {
            return SubjectId::parse(id);
        }
        // An empty id is invalid, with or without a prefix.
        SubjectId::parse(id)?;
        let prefix = self.0.replace(ISS, issuer.unwrap_or_default());
        SubjectId::parse(&(prefix + id))
    }
}

impl TryFrom<String> for SubjectPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        SubjectId::parse(&text).map_err(|fault| fault.to_string())?;
        if text.replace(ISS, "").contains(['{', '}']) {
            return Err(format!("`{text}`: `{ISS}` is the only placeholder"));
        }
        Ok(Self(text))
    }
}
