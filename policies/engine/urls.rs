//! URLs of other services.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Position, Url};

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

    /// Whether others on the network cannot read or change the traffic: https, or this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.scheme() == "https" || is_loopback(&self.0)
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = &'static str;

    // Messages do not show the text, because it may contain a password.
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
    /// The URL with both placeholders replaced.
    #[must_use]
    pub fn fill(&self, workspace: PathSegment<'_>, user: PathSegment<'_>) -> String {
        // In one pass, so that inserted text is not scanned again.
        let mut url = String::with_capacity(self.0.len() + workspace.0.len() + user.0.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            url.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{workspace}") {
                url.extend(workspace.escaped());
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{user}") {
                url.extend(user.escaped());
                rest = after;
            } else {
                url.push('{');
                rest = &rest[1..];
            }
        }
        url.push_str(rest);
        url
    }

    /// Whether others on the network cannot read or change the traffic: https, or this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let url = self.fill(PathSegment("w"), PathSegment("u"));
        ServiceUrl::try_from(url).is_ok_and(|url| url.is_private())
    }
}

/// Text that is one plain segment of a path, even for a proxy or a server that decodes and normalises paths.
///
/// It consists of ASCII letters, digits and `-._~@:|+=`, which suffices for UUIDs, e-mail addresses and the usual ids,
/// and is not `.`, `..` or more dots. Anything else could point elsewhere once it is decoded: `/`, `\`, `;`, `?`, `#`,
/// `%`, or a character that is normalised to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSegment<'a>(&'a str);

impl<'a> PathSegment<'a> {
    /// `None` if the text is not a plain segment.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:|+=".contains(&byte);
        let is_segment = text.bytes().all(is_plain) && text.bytes().any(|byte| byte != b'.');
        is_segment.then_some(Self(text))
    }

    /// Percent-encoded where necessary.
    fn escaped(self) -> PercentEncode<'a> {
        utf8_percent_encode(self.0, SEGMENT)
    }
}

impl TryFrom<String> for UrlTemplate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let template = Self(text);
        let filled = |text| {
            let segment = PathSegment(text);
            ServiceUrl::try_from(template.fill(segment, segment))
        };
        let (one, other) = (filled("x")?.0, filled("y")?.0);
        if one[..Position::BeforePath] != other[..Position::BeforePath] {
            // Otherwise a client could choose the host.
            Err("must have `{workspace}` and `{user}` in its path, not in its host")
        } else if template.0.contains("{workspace}") && template.0.contains("{user}") {
            Ok(template)
        } else {
            Err("must have `{workspace}` and `{user}` in it")
        }
    }
}

/// All characters except the unreserved ones of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
