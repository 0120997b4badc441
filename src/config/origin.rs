//! Web origins (RFC 6454): the gate's own, those that the config allows, and that of a request.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::service_url::is_loopback;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` stands for the scheme's default port.
    port: Option<u16>,
}

impl Origin {
    /// Reads the value of an `Origin` header. `null` is not an origin.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_authority(authority)?;
        Some(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port: port.filter(|port| Some(*port) != default_port(scheme)),
        })
    }

    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `None` stands for the scheme's default port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let url = Url::parse(&format!("http://{}", self.host));
        self.host.ends_with(".localhost") || url.is_ok_and(|url| is_loopback(&url))
    }

    /// Whether a `Host` header names this origin's host and port. Without a port it names the default one.
    #[must_use]
    pub fn is_at(&self, host: &str) -> bool {
        split_authority(host).is_some_and(|(host, port)| {
            let port = port.filter(|port| Some(*port) != default_port(&self.scheme));
            host.eq_ignore_ascii_case(&self.host) && port == self.port
        })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Splits `host`, `host:port` or `[address]:port`.
fn split_authority(text: &str) -> Option<(&str, Option<u16>)> {
    let end_of_host = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match text[end_of_host..].find(':') {
        None => (text, None),
        Some(colon) => {
            let (host, port) = text.split_at(end_of_host + colon);
            let digits = &port[1..];
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(digits.parse().ok().filter(|_| is_number)?))
        }
    };
    (!host.is_empty()).then_some((host, port))
}

/// The origin under which browsers reach the gate, for example `"https://app.example.com"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "an origin", "examples" = ["https://app.example.com"]))]
pub struct PublicOrigin(pub Origin);

impl TryFrom<String> for PublicOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let origin = parse_config(&text)?;
        if !matches!(origin.scheme(), "http" | "https") {
            Err(format!("`{text}` must be an http or https origin"))
        } else if origin.host.contains('*') {
            Err(format!("`{text}` must name one origin, without `*`"))
        } else {
            Ok(Self(origin))
        }
    }
}

/// What pages of an allowed origin may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Bearer tokens, but no cookies, because anyone can register a matching host.
    BearerOnly,
    /// Bearer tokens and cookies.
    Credentials,
}

/// An origin, for example `"https://app.example.com"`, or a pattern in whose host `*` matches one or more of
/// `[a-z0-9-]` within one label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "an origin", "examples" = ["https://app.example.com"]))]
pub struct OriginPattern {
    origin: Origin,
    /// Whether any port matches, and not only that of `origin`.
    any_port: bool,
    trust: Trust,
}

impl OriginPattern {
    /// The pattern as an origin whose host may contain `*`.
    #[must_use]
    pub fn as_origin(&self) -> &Origin {
        &self.origin
    }

    /// Pages that this machine serves over http at any port.
    pub(crate) fn local_pages() -> [Self; 2] {
        ["localhost", "127.0.0.1"].map(|host| Self {
            origin: Origin {
                scheme: "http".to_owned(),
                host: host.to_owned(),
                port: None,
            },
            any_port: true,
            trust: Trust::Credentials,
        })
    }

    /// What pages of `origin` may send if it matches.
    #[must_use]
    pub fn trust(&self, origin: &Origin) -> Option<Trust> {
        let matches = self.origin.scheme == origin.scheme
            && (self.any_port || self.origin.port == origin.port)
            && host_matches(&self.origin.host, &origin.host);
        matches.then_some(self.trust)
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let origin = parse_config(&text)?;
        let trust = if is_open_to_all(&origin.host) {
            Trust::BearerOnly
        } else {
            Trust::Credentials
        };
        Ok(Self {
            origin,
            any_port: false,
            trust,
        })
    }
}

/// Parses an origin whose host may contain `*`. Rejects those that no request can match.
fn parse_config(text: &str) -> Result<Origin, String> {
    let no_origin = || {
        format!(
            "`{text}` is not an origin; write only scheme, host and port, for example \"https://app.example.com\""
        )
    };
    if text == "null" {
        return Err(
            "`null` cannot be allowed, because sandboxed frames and local files of any site send it"
                .to_owned(),
        );
    }
    if text == "*" {
        return Err(
            "`*` would allow every site; write for example \"https://*.example.com\"".to_owned(),
        );
    }
    let (scheme, authority) = text.split_once("://").ok_or_else(no_origin)?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if !is_scheme || authority.contains(['/', '\\', '?', '#', '@', '%', ' ']) {
        return Err(no_origin());
    }
    match scheme.as_str() {
        "file" | "data" | "blob" | "about" | "javascript" => {
            return Err(format!(
                "`{text}` never matches: browsers send `null` for such pages"
            ));
        }
        "ws" | "wss" => {
            return Err(format!(
                "`{text}` never matches: pages are loaded over http or https"
            ));
        }
        _ => {}
    }
    if authority.ends_with(":*") {
        return Err(format!(
            "`{text}`: `*` cannot stand for a port; write the port"
        ));
    }
    let (host, _) = split_authority(authority).ok_or_else(no_origin)?;
    let host = host.to_ascii_lowercase();
    let lowercase = format!("{scheme}://{}", authority.to_ascii_lowercase());
    let origin = Origin::parse(&lowercase).ok_or_else(no_origin)?;
    if matches!(scheme.as_str(), "http" | "https") {
        let url = Url::parse(&format!("{scheme}://{host}")).map_err(|_| no_origin())?;
        let spelling = url.host_str().unwrap_or_default();
        if spelling != host {
            return Err(format!(
                "`{text}` never matches: browsers write the host as `{spelling}`"
            ));
        }
    }
    check_host(&host).map_err(|reason| format!("`{text}` never matches: {reason}"))?;
    Ok(origin)
}

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;
const MAX_HOST: usize = 253;

/// Whether anyone can register a host that the pattern matches, because its `*` reaches into a public suffix, as in
/// `*.com` and `app-*.vercel.app`.
fn is_open_to_all(host: &str) -> bool {
    let Some(star) = host.rfind('*') else {
        return false;
    };
    let fixed = host[star..].split_once('.').map(|(_, fixed)| fixed);
    fixed.is_none_or(|fixed| psl::domain_str(fixed).is_none())
}

fn host_matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    let mut labels = host.split('.');
    pattern.split('.').all(|pattern| {
        labels
            .next()
            .is_some_and(|label| label_matches(pattern, label))
    }) && labels.next().is_none()
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((first, pieces)) = pattern.split_once('*') else {
        return pattern == label;
    };
    let Some(mut rest) = label.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.split('*').peekable();
    while let Some(piece) = pieces.next() {
        let Some(taken) = star_length(rest, piece, pieces.peek().is_none()) else {
            return false;
        };
        rest = &rest[taken + piece.len()..];
    }
    true
}

/// How many bytes at the start of `rest` a `*` matches if `piece` must follow it.
fn star_length(rest: &str, piece: &str, is_last: bool) -> Option<usize> {
    let taken = if is_last {
        rest.strip_suffix(piece)?.len()
    } else {
        rest.get(1..)?.find(piece)? + 1
    };
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (taken > 0 && rest[..taken].bytes().all(is_allowed)).then_some(taken)
}

/// Rejects patterns that no host can match. The error says why.
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.starts_with('[') {
        return if host.contains('*') {
            Err("an IP address cannot contain `*`")
        } else {
            Ok(())
        };
    }
    if !host.is_ascii() {
        return Err("the host must be ASCII");
    }
    if host.contains("**") {
        return Err("`*` matches one label or a part of it; write `*.*` for two labels");
    }
    let labels: Vec<_> = host.split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Err("the host has an empty label");
    }
    if host.len() > MAX_HOST || labels.iter().any(|label| label.len() > MAX_LABEL) {
        return Err("the host or one of its labels is too long");
    }
    Ok(())
}
