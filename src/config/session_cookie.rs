//! `[session] cookie`: the attributes of the session cookie, and which of them browsers do not keep together.

use schemars::JsonSchema;
use serde::Deserialize;

/// `[session] cookie`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieSettings {
    /// The cookie's name. Browsers keep a name that begins with `__Host-` for the host that set it, so that no other
    /// host of the domain can plant one.
    pub name: CookieName,
    /// Whether it travels over https only.
    pub secure: bool,
    /// Which requests of other sites carry it.
    pub same_site: SameSite,
    /// Whether a page of another site that embeds yours gets a cookie of its own (CHIPS).
    pub partitioned: bool,
    /// The domain whose hosts all get the cookie; left out: only the gate's own host.
    pub domain: Option<CookieDomain>,
    /// The path below which the cookie is sent.
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
    /// Why browsers would reject the cookie, or never send it to `session_path` (RFC 6265bis, 4.1.2 and 4.1.3; CHIPS).
    #[must_use]
    pub fn contradictions(&self, session_path: &str) -> Vec<String> {
        let mut found = Vec::new();
        let lowercase = self.name.as_str().to_ascii_lowercase();
        let is_host = lowercase.starts_with("__host-");
        let is_secure =
            is_host || lowercase.starts_with("__secure-") || lowercase.starts_with("__http-");
        let name = self.name.as_str();
        if is_secure && !self.secure {
            found.push(format!(
                "a cookie named `{name}` needs `secure = true`; over plain http it needs another name, for example \
                 name = \"imgwire_gate\""
            ));
        }
        if is_host && self.domain.is_some() {
            found.push(format!("a cookie named `{name}` has no `domain`"));
        }
        if is_host && self.path.0 != "/" {
            found.push(format!("a cookie named `{name}` needs `path = \"/\"`"));
        }
        if !self.secure && self.same_site == SameSite::None {
            found.push("`same_site = \"none\"` needs `secure = true`".to_owned());
        }
        if !self.secure && self.partitioned {
            found.push("`partitioned = true` needs `secure = true`".to_owned());
        }
        if !self.path.covers(session_path) {
            found.push(format!(
                "browsers do not send a cookie of the path `{}` to `{session_path}`",
                self.path.0
            ));
        }
        found
    }

    /// Possible, but rarely intended.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(CookieDomain(domain)) = &self.domain {
            found.push(format!(
                "every host of `{domain}` gets the session cookie, and can replace it; leave `domain` out if the gate \
                 is on the host of its pages"
            ));
        }
        if self.path.0 != "/" {
            found.push(format!(
                "browsers send the session cookie to paths below `{}` only, and another path of the same host can still \
                 read it; leave `path` out",
                self.path.0
            ));
        }
        if self.partitioned && self.same_site != SameSite::None {
            found.push(
                "a partitioned cookie is for pages that other sites embed, which need `same_site = \"none\"`"
                    .to_owned(),
            );
        }
        found
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

/// The name of a cookie: a token of RFC 9110.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
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
            Err("is no name for a cookie: letters, digits and any of !#$%&'*+-.^_`|~")
        }
    }
}

/// The `Domain` of a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct CookieDomain(String);

impl CookieDomain {
    /// The domain, without a leading dot.
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
                "`{text}` is a public suffix: browsers keep no cookie for all of it"
            ))
        } else {
            Ok(Self(domain))
        }
    }
}

/// The `Path` of a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
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
            Err("must start with `/` and consist of visible ASCII characters other than `;`")
        }
    }
}
