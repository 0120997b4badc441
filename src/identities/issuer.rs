//! `issuer` and `subject_prefix`: the issuers whose tokens an identity accepts, and how it distinguishes their subjects.

use std::fmt;

use policies::{InvalidId, SubjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::config::service_url::PathSegment;

/// The placeholder for the claim `tid` in an issuer.
const TID: &str = "{tid}";

/// Microsoft's name of the placeholder, in discovery documents and key sets.
const TENANT_ID: &str = "{tenantid}";

/// The issuers of tokens of version 1 of Microsoft Entra ID, `<first><tid>/`, and of version 2, `<second><tid>/v2.0`. Both
/// have the same keys, which name the second one.
const ENTRA_VERSIONS: [(&str, &str); 3] = [
    (
        "https://sts.windows.net/",
        "https://login.microsoftonline.com/",
    ),
    (
        "https://sts.windows.net/",
        "https://login.microsoftonline.us/",
    ),
    (
        "https://sts.chinacloudapi.cn/",
        "https://login.partner.microsoftonline.cn/",
    ),
];

/// The placeholder for the token's issuer in a subject prefix.
const ISS: &str = "{iss}";

/// One string or a list of strings.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
#[schemars(extend("examples" = ["https://app.example.com"]))]
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
#[schemars(extend("examples" = ["https://app.example.com"]))]
pub struct Issuers(#[schemars(with = "OneOrMany")] Vec<Issuer>);

impl Issuers {
    /// Whether a token with these claims comes from one of the issuers.
    #[must_use]
    pub fn contains(&self, iss: &str, tid: Option<&str>) -> bool {
        self.0.iter().any(|issuer| issuer.matches(iss, tid))
    }

    /// Whether the metadata of an issuer names one of these.
    pub(super) fn are_named(&self, published: &str) -> bool {
        let published = published.replace(TENANT_ID, TID);
        self.0.iter().any(|issuer| issuer.0 == published)
    }

    /// Whether several issuers have no placeholder, and are not one issuer with and without the scheme, like Google's.
    pub(super) fn are_several(&self) -> bool {
        let literals = self.0.iter().filter(|issuer| !issuer.has_tid());
        let mut names =
            literals.map(|issuer| issuer.0.strip_prefix("https://").unwrap_or(&issuer.0));
        let first = names.next();
        names.any(|name| Some(name) != first)
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
pub(super) struct Issuer(String);

impl Issuer {
    /// Reads an issuer as its metadata writes it.
    pub(super) fn published(text: &str) -> Result<Self, String> {
        Self::try_from(&*text.replace(TENANT_ID, TID))
    }

    /// Whether a key of this issuer may verify a token with these claims.
    pub(super) fn vouches_for(&self, iss: &str, tid: Option<&str>) -> bool {
        let is_other_version = |(first, second): &(&str, &str)| {
            between((*first, "/"), iss)
                .is_some_and(|tenant| self.matches(&format!("{second}{tenant}/v2.0"), tid))
        };
        self.matches(iss, tid) || ENTRA_VERSIONS.iter().any(is_other_version)
    }

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
#[schemars(extend("examples" = ["app:"]))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_vouches_for_the_tokens_of_its_issuer_in_both_versions() {
        let key = |issuer: &str| Issuer::published(issuer).unwrap();
        let every = key("https://login.microsoftonline.com/{tenantid}/v2.0");
        let one = key("https://login.microsoftonline.com/t1/v2.0");
        for (iss, tid, by_every, by_one) in [
            (
                "https://login.microsoftonline.com/t1/v2.0",
                "t1",
                true,
                true,
            ),
            (
                "https://login.microsoftonline.com/t2/v2.0",
                "t2",
                true,
                false,
            ),
            (
                "https://login.microsoftonline.com/t1/v2.0",
                "t2",
                false,
                true,
            ),
            ("https://sts.windows.net/t1/", "t1", true, true),
            ("https://sts.windows.net/t2/", "t2", true, false),
            ("https://sts.windows.net/t1/", "t2", false, true),
            ("https://sts.windows.net/t1", "t1", false, false),
            ("https://sts.chinacloudapi.cn/t1/", "t1", false, false),
            (
                "https://login.microsoftonline.us/t1/v2.0",
                "t1",
                false,
                false,
            ),
        ] {
            assert_eq!(every.vouches_for(iss, Some(tid)), by_every, "{iss} {tid}");
            assert_eq!(one.vouches_for(iss, Some(tid)), by_one, "{iss} {tid}");
        }
        assert!(!every.vouches_for("https://login.microsoftonline.com/t1/v2.0", None));
        assert!(Issuer::published("https://login.example.com/{tenant}").is_err());
    }

    #[test]
    fn two_names_of_one_issuer_are_not_several() {
        let several = |issuers: &[&str]| {
            let issuers = issuers.iter().map(|text| Issuer::try_from(*text).unwrap());
            Issuers(issuers.collect()).are_several()
        };
        assert!(!several(&["https://a.example"]));
        assert!(!several(&[
            "accounts.google.com",
            "https://accounts.google.com"
        ]));
        assert!(!several(&[
            "https://a.example/{tid}",
            "https://b.example/{tid}"
        ]));
        assert!(several(&["https://a.example", "https://b.example"]));
        assert!(several(&["https://a.example/1", "https://a.example/2"]));
        assert!(several(&["https://a.example", "http://a.example"]));
    }
}
