//! `[session]`: the gate's own session cookie.

use policies::{ClaimPath, Interval, StoreName};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::{document::Reader, secret::SecretSource};

pub(crate) const COOKIE: &str = "session.cookie";

/// `[session]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// Where sessions are stored: `"cookie"`, which is encrypted, or the name of a Redis store in `[stores]`. Default:
    /// `"cookie"`.
    #[serde(default)]
    #[schemars(with = "String", extend("x-section" = "stores", "examples" = ["cookie"]))]
    pub store: SessionPlace,
    /// The key that encrypts the cookie, at least 64 bytes.
    pub key: SecretSource,
    /// Earlier values of `key`. Cookies that they encrypted stay valid, so you can rotate `key` without signing users
    /// out. Default: none.
    #[serde(default)]
    pub previous_keys: Vec<SecretSource>,
    /// The maximum lifetime of a session. Default: `"12h"`.
    #[serde(default = "default_ttl")]
    pub ttl: Interval,
    /// How long a session lasts without a request. Default: the value of `ttl`.
    #[serde(default)]
    pub idle_ttl: Option<Interval>,
    /// Claims to keep in the session in addition to those that policies read. Each is a name or a JSON Pointer, for
    /// example `["email", "/app_metadata/plan"]`. Default: none.
    #[serde(default)]
    pub claims: Vec<ClaimPath>,
    /// The attributes of the session cookie. Default:
    /// `{ name = "__Host-imgwire_gate", secure = true, same_site = "lax", partitioned = false }`.
    #[serde(default)]
    pub cookie: CookieSettings,
}

#[derive(Clone, Debug)]
pub struct SessionKeys {
    pub current: SecretString,
    /// These only decrypt cookies.
    pub previous: Vec<SecretString>,
}

fn default_ttl() -> Interval {
    Interval::from_secs(12 * 60 * 60)
}

/// Where sessions are stored: `cookie`, or the name of a store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "StoreName")]
pub enum SessionPlace {
    #[default]
    Cookie,
    /// The cookie holds only the session's key.
    Store(StoreName),
}

impl From<StoreName> for SessionPlace {
    fn from(name: StoreName) -> Self {
        if name.as_str() == "cookie" {
            Self::Cookie
        } else {
            Self::Store(name)
        }
    }
}

impl SessionPlace {
    #[must_use]
    pub fn name(&self) -> Option<&StoreName> {
        match self {
            Self::Cookie => None,
            Self::Store(name) => Some(name),
        }
    }
}

/// `[session] cookie`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "same_site": "lax" }]))]
pub struct CookieSettings {
    /// The cookie's name. If it starts with `__Host-`, browsers do not let other hosts of the domain set the cookie.
    /// Default: `"__Host-imgwire_gate"`.
    pub name: CookieName,
    /// Whether browsers send the cookie only over https. Default: `true`.
    pub secure: bool,
    /// Which requests from other sites carry the cookie. Default: `"lax"`.
    pub same_site: SameSite,
    /// Whether browsers keep a separate cookie for each site that embeds your pages (CHIPS). Default: `false`.
    pub partitioned: bool,
    /// A domain all of whose hosts receive the cookie, for example `"example.com"`. Default: only the gate's own host.
    pub domain: Option<CookieDomain>,
    /// The path below which browsers send the cookie. Default: `"/"`.
    pub path: CookiePath,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: CookieName("__Host-imgwire_gate".to_owned()),
            secure: true,
            same_site: SameSite::Lax,
            partitioned: false,
            domain: None,
            path: CookiePath("/".to_owned()),
        }
    }
}

impl CookieSettings {
    /// Records faults for what browsers would reject or never send to `session_path` (RFC 6265bis, 4.1.2 and 4.1.3;
    /// CHIPS), and warnings for what is rarely intended.
    pub(crate) fn check(&self, reader: &mut Reader, session_path: &str) {
        let (name, path) = (self.name.as_str(), self.path.as_str());
        let lowercase = name.to_ascii_lowercase();
        let is_host = lowercase.starts_with("__host-");
        let is_secure =
            is_host || lowercase.starts_with("__secure-") || lowercase.starts_with("__http-");
        let mut fault = |message: String| reader.fault(COOKIE, message);
        if is_secure && !self.secure {
            fault(format!(
                "a cookie named `{name}` needs `secure = true`; for plain http, choose another name, for example \
                 name = \"imgwire_gate\""
            ));
        }
        if is_host && self.domain.is_some() {
            fault(format!("a cookie named `{name}` must not have a `domain`"));
        }
        if is_host && path != "/" {
            fault(format!("a cookie named `{name}` needs `path = \"/\"`"));
        }
        if !self.secure && self.same_site == SameSite::None {
            fault("`same_site = \"none\"` needs `secure = true`".to_owned());
        }
        if !self.secure && self.partitioned {
            fault("`partitioned = true` needs `secure = true`".to_owned());
        }
        if !self.path.covers(session_path) {
            fault(format!(
                "browsers do not send a cookie with path `{path}` to `{session_path}`"
            ));
        }
        let mut warning = |message: String| reader.warning(COOKIE, message);
        if let Some(CookieDomain(domain)) = &self.domain {
            warning(format!(
                "every host of `{domain}` receives the session cookie and can replace it; omit `domain` if the gate has \
                 the same host as its pages"
            ));
        }
        if path != "/" {
            warning(format!(
                "browsers send the session cookie only to paths below `{path}`, but pages at other paths of the same \
                 host can still use it; omit `path`"
            ));
        }
        if self.partitioned && self.same_site != SameSite::None {
            warning(
                "`partitioned` is for pages that other sites embed, which also need `same_site = \"none\"`".to_owned(),
            );
        }
    }
}

/// Which requests from other sites carry the cookie (`SameSite` of RFC 6265bis).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// No request.
    Strict,
    /// Only navigation, for example through a link.
    Lax,
    /// Every request; needs `secure = true`.
    None,
}

impl SameSite {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// The name of a cookie (a token of RFC 9110).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["imgwire_gate"]))]
pub struct CookieName(String);

impl CookieName {
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
            Err("must be a cookie name, of letters, digits and !#$%&'*+-.^_`|~")
        }
    }
}

/// The `Domain` of a cookie, for example `"example.com"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["example.com"]))]
pub struct CookieDomain(String);

impl CookieDomain {
    /// Without a leading dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CookieDomain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let domain = text.strip_prefix('.').unwrap_or(&text).to_ascii_lowercase();
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !label.is_empty() && label.bytes().all(allowed)
        };
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if !domain.split('.').all(is_label) || domain.rsplit('.').next().is_none_or(is_number) {
            Err(format!(
                "`{text}` is not a domain; write for example \"example.com\""
            ))
        } else if psl::domain_str(&domain).is_none() {
            Err(format!(
                "`{text}` is a public suffix; browsers reject cookies for it"
            ))
        } else {
            Ok(Self(domain))
        }
    }
}

/// The `Path` of a cookie; it starts with `/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["/"]))]
pub struct CookiePath(String);

impl CookiePath {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether browsers send the cookie to a request path (RFC 6265, 5.1.4).
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || self.0.ends_with('/') || rest.starts_with('/'))
    }
}

impl TryFrom<String> for CookiePath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if text.starts_with('/') && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err("must start with `/` and contain only visible ASCII characters other than `;`")
        }
    }
}
