//! `[identities.<name>]`: who a request may come from. One kind, one file.

pub mod forwarded;
pub mod introspection;
pub mod issuer;
pub mod jwt;
pub mod remote;

use std::collections::BTreeMap;

use actix_web::http::header::{self, AUTHORIZATION, HeaderName};
use policies::{IdentityName, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use self::issuer::SubjectPrefix;
pub use self::{
    forwarded::ForwardedSettings, introspection::IntrospectionSettings, jwt::JwtSettings,
    remote::RemoteSettings,
};
use super::session::CookieName;

/// The settings of one identity, by its kind.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(tag = "kind", rename_all = "snake_case")]
pub enum IdentitySettings {
    /// A JSON Web Token (RFC 7519).
    Jwt(Box<JwtSettings>),
    /// An opaque token that its issuer is asked about (RFC 7662).
    Introspection(Box<IntrospectionSettings>),
    /// The gate's own session cookie.
    Session(SessionIdentitySettings),
    /// What a trusted proxy says.
    Forwarded(ForwardedSettings),
    /// The app's own session lookup.
    Remote(Box<RemoteSettings>),
}

/// `kind = "session"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionIdentitySettings {
    /// The identities whose credentials may be exchanged for a session. A session that came from any other identity is
    /// not accepted.
    #[schemars(length(min = 1))]
    pub exchange: Vec<IdentityName>,
}

/// Values of claims: for each claim the value, or the values, that it may have. A claim that is a list must contain one
/// of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ClaimValues(pub BTreeMap<String, OneOrMany>);

/// A text, or several.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
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

fn default_from() -> Vec<TokenSource> {
    vec![TokenSource::Bearer]
}

fn no_prefix() -> SubjectPrefix {
    SubjectPrefix::default()
}

fn default_ambient() -> bool {
    true
}

fn default_subject_claim() -> String {
    "sub".to_owned()
}

fn default_leeway() -> Leeway {
    Leeway(Some(Interval::from_secs(30)))
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// How far two clocks may be apart: a duration, or `"0s"`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(with = "Interval")]
pub struct Leeway(Option<Interval>);

impl Leeway {
    /// In whole seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
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

/// Where a credential is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie, which a browser sends by itself.
    Cookie(CookieName),
    /// A header of its own.
    Header(HeaderName),
}

impl TokenSource {
    /// Whether both are the same header or cookie.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bearer, Self::Header(name)) | (Self::Header(name), Self::Bearer) => {
                *name == AUTHORIZATION
            }
            _ => self == other,
        }
    }
}

impl TryFrom<String> for TokenSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("`{text}` must be \"bearer\", \"cookie:NAME\" or \"header:NAME\"");
        if text == "bearer" {
            Ok(Self::Bearer)
        } else if let Some(name) = text.strip_prefix("cookie:") {
            let name = CookieName::try_from(name.to_owned()).map_err(|_| fault())?;
            Ok(Self::Cookie(name))
        } else if let Some(name) = text.strip_prefix("header:") {
            let name: HeaderName = name.parse().map_err(|_| fault())?;
            if name == header::COOKIE {
                // Read as a header it would pass the cross-site check, and hold every other cookie, too.
                return Err("write \"cookie:NAME\" for a cookie, not \"header:cookie\"".to_owned());
            }
            Ok(Self::Header(name))
        } else {
            Err(fault())
        }
    }
}
