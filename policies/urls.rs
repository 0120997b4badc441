//! Where other services are.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

/// The URL of a service that the gate asks: http or https, without a user, a password or a
/// fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether nobody on the way can read or change what travels: https, or this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.scheme() == "https" || is_loopback(&self.0)
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = &'static str;

    // No message shows the text, which may hold a password.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let url = Url::parse(&text)
            .map_err(|_| "is no URL; write for example \"https://id.example.com/introspect\"")?;
        if !matches!(url.scheme(), "http" | "https") {
            Err("must be an http or https URL")
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("must not carry a user or a password")
        } else if url.fragment().is_some() {
            Err("must not have a fragment")
        } else {
            Ok(Self(url))
        }
    }
}

/// Whether a URL leads to this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// A URL with `{workspace}` and `{user}` in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct UrlTemplate(String);

impl UrlTemplate {
    /// The URL for these two, each escaped as one segment of the path.
    #[must_use]
    pub fn fill(&self, workspace: &str, user: &str) -> String {
        let escape = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
        // One after the other in one pass: what is filled in is not looked at again.
        let mut url = String::with_capacity(self.0.len() + workspace.len() + user.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            url.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{workspace}") {
                url.push_str(&escape(workspace));
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{user}") {
                url.push_str(&escape(user));
                rest = after;
            } else {
                url.push('{');
                rest = &rest[1..];
            }
        }
        url.push_str(rest);
        url
    }

    /// Whether nobody on the way can read or change what travels: https, or this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        ServiceUrl::try_from(self.fill("w", "u")).is_ok_and(|url| url.is_private())
    }
}

impl TryFrom<String> for UrlTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let template = Self(text);
        ServiceUrl::try_from(template.fill("w", "u"))?;
        if template.0.contains("{workspace}") && template.0.contains("{user}") {
            Ok(template)
        } else {
            Err("must have `{workspace}` and `{user}` in it")
        }
    }
}

/// Everything but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
