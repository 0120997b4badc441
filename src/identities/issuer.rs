//! `issuer` and `subject_prefix`: the issuers whose tokens an identity takes, and what keeps their subjects apart.

use policies::{InvalidId, SubjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::config::url_template::PathSegment;

/// What stands for the claim `tid` in an issuer.
const TID: &str = "{tid}";

/// What stands for the token's issuer in a subject's prefix.
const ISS: &str = "{iss}";

/// A text, or several.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
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

/// The issuers of which `iss` must name one: an issuer or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Issuers(#[schemars(with = "OneOrMany")] Vec<Issuer>);

impl Issuers {
    /// Whether a token with this `iss` and this `tid` comes from one of them.
    #[must_use]
    pub fn include(&self, iss: &str, tid: Option<&str>) -> bool {
        self.0.iter().any(|issuer| issuer.is(iss, tid))
    }

    /// Whether every token of `others` is also a token of these.
    #[must_use]
    pub fn cover(&self, others: &Self) -> bool {
        let is_covered = |other: &Issuer| self.0.iter().any(|issuer| issuer.covers(other));
        others.0.iter().all(is_covered)
    }

    /// The issuer, if there is one only and it takes no claim.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [issuer] if !issuer.takes_tid() => Some(&issuer.0),
            _ => None,
        }
    }

    /// Whether one of them takes the claim `tid`.
    #[must_use]
    pub fn take_tid(&self) -> bool {
        self.0.iter().any(Issuer::takes_tid)
    }

    /// As the config writes them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|issuer| issuer.0.as_str())
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

/// An issuer, in which `{tid}` may stand for the token's claim `tid`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issuer(String);

impl Issuer {
    fn takes_tid(&self) -> bool {
        self.0.contains(TID)
    }

    fn is(&self, iss: &str, tid: Option<&str>) -> bool {
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

/// What `text` has between a beginning and an end.
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
                "`{text}`: only `{TID}` can stand for a claim, and only once"
            ))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// What the subject's id begins with, so that equal ids of two issuers are two users. `{iss}` in it is the token's
/// issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct SubjectPrefix(String);

impl SubjectPrefix {
    /// Whether the token's issuer is in it.
    #[must_use]
    pub fn takes_issuer(&self) -> bool {
        self.0.contains(ISS)
    }

    /// Whether a subject's id can fill a segment of a URL's path. No URL of an issuer can.
    #[must_use]
    pub fn fits_path(&self) -> bool {
        PathSegment::parse(&(self.0.replace(ISS, "https://") + "x")).is_some()
    }

    /// The id of the subject that `issuer` calls `id`.
    ///
    /// # Errors
    ///
    /// What is wrong with the id.
    pub fn apply(&self, id: &str, issuer: Option<&str>) -> Result<SubjectId, InvalidId> {
        if self.0.is_empty() {
            return SubjectId::parse(id);
        }
        // An empty id stays one: the prefix alone is no user.
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
            return Err(format!("`{text}`: only `{ISS}` can stand for something"));
        }
        Ok(Self(text))
    }
}
