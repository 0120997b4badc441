//! `[session]`: the gate's own session cookie.

use policies::{Interval, StoreName};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use serde_spanned::Spanned;

use super::secret::SecretSource;

/// `[session]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// Where sessions are kept.
    #[serde(default)]
    #[schemars(with = "String")]
    pub store: SessionPlace,
    /// The key that the cookie is encrypted with, at least 64 bytes.
    #[schemars(with = "SecretSource")]
    pub key: Spanned<SecretSource>,
    /// Keys that cookies were encrypted with earlier: they are still read, so that a change of the key signs
    /// nobody out.
    #[serde(default)]
    #[schemars(with = "Vec<SecretSource>")]
    pub previous_keys: Vec<Spanned<SecretSource>>,
    /// How long a session lasts, whatever is done with it.
    #[serde(default = "default_ttl")]
    pub ttl: Interval,
    /// How long a session lasts without a request; left out: as long as `ttl`.
    #[serde(default)]
    pub idle_ttl: Option<Interval>,
    /// The cookie.
    #[serde(default = "default_cookie")]
    #[schemars(with = "CookieSettings")]
    pub cookie: Spanned<CookieSettings>,
}

/// The keys of the session cookie.
#[derive(Clone, Debug)]
pub struct SessionKeys {
    /// The one that cookies are encrypted with.
    pub current: SecretString,
    /// Those that cookies were encrypted with earlier.
    pub previous: Vec<SecretString>,
}

fn default_cookie() -> Spanned<CookieSettings> {
    Spanned::new(0..0, CookieSettings::default())
}

fn default_ttl() -> Interval {
    Interval::from_secs(12 * 60 * 60)
}

/// Where sessions are kept: `cookie`, or a name of `[stores]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Spanned<StoreName>")]
pub enum SessionPlace {
    /// In the cookie itself, encrypted.
    #[default]
    Cookie,
    /// In a store; the cookie has the session's key.
    Store(Spanned<StoreName>),
}

impl From<Spanned<StoreName>> for SessionPlace {
    fn from(name: Spanned<StoreName>) -> Self {
        if name.get_ref().as_str() == "cookie" {
            Self::Cookie
        } else {
            Self::Store(name)
        }
    }
}

impl SessionPlace {
    /// The store, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&StoreName> {
        match self {
            Self::Cookie => None,
            Self::Store(name) => Some(name.get_ref()),
        }
    }
}

/// `[session] cookie`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieSettings {
    /// The cookie's name.
    pub name: CookieName,
    /// Whether it travels over https only.
    pub secure: bool,
    /// When other sites' requests carry it.
    pub same_site: SameSite,
}

impl CookieSettings {
    /// Why browsers would not keep the cookie, if they would not (RFC 6265bis, 4.1.2.7 and 4.1.3).
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let name = self.name.as_str().to_ascii_lowercase();
        let is_prefixed = name.starts_with("__host-") || name.starts_with("__secure-");
        match (self.secure, self.same_site) {
            (false, _) if is_prefixed => Some("a name with this prefix needs `secure = true`"),
            (false, SameSite::None) => Some("`same_site = \"none\"` needs `secure = true`"),
            _ => None,
        }
    }
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: CookieName("imgwire_gate".to_owned()),
            secure: true,
            same_site: SameSite::Lax,
        }
    }
}

/// `SameSite` of RFC 6265bis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link leads here.
    Lax,
    /// Always; needs `secure`.
    None,
}

/// The name of a cookie: a token of RFC 9110.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct CookieName(String);

impl CookieName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CookieName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !text.is_empty() && text.bytes().all(is_token) {
            Ok(Self(text))
        } else {
            Err("is no name for a cookie: letters, digits and any of !#$%&'*+-.^_`|~")
        }
    }
}
