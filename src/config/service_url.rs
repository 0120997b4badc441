//! URLs of other services, and templates of such URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Position, Url};

/// The http or https URL of a service, without a user name, a password or a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "a URL", "examples" = ["https://id.example.com/introspect"]))]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether traffic is protected from others on the network, by https or because it stays on this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.scheme() == "https" || is_loopback(&self.0)
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = &'static str;

    // Errors do not show the text, because it may contain a password.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let url = Url::parse(&text).map_err(
            |_| "is not a URL; write it with the scheme, for example \"https://id.example.com\"",
        )?;
        if !matches!(url.scheme(), "http" | "https") {
            Err(
                "is not an http or https URL; write it with the scheme, for example \"https://id.example.com\"",
            )
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("must not contain a user name or a password")
        } else if url.fragment().is_some() {
            Err("must not contain a fragment")
        } else {
            Ok(Self(url))
        }
    }
}

/// Whether the host of a URL is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// A URL with `{workspace}` and `{user}` in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlTemplate(String);

impl UrlTemplate {
    /// Errors do not show the text, because it may contain a password.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let template = Self(text.to_owned());
        let filled = |text| {
            let segment = PathSegment(text);
            ServiceUrl::try_from(template.fill(segment, segment))
        };
        let (one, other) = (filled("x")?, filled("y")?);
        if one.url()[..Position::BeforePath] != other.url()[..Position::BeforePath] {
            // Otherwise a client could choose the host.
            Err("must contain `{workspace}` and `{user}` in its path, not in its host")
        } else if text.contains("{workspace}") && text.contains("{user}") {
            Ok(template)
        } else {
            Err("must contain `{workspace}` and `{user}`")
        }
    }

    /// Replaces both placeholders.
    pub(crate) fn fill(&self, workspace: PathSegment<'_>, user: PathSegment<'_>) -> String {
        // One pass, so that placeholders in inserted text are not replaced.
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

    /// See [`ServiceUrl::is_private`].
    pub(crate) fn is_private(&self) -> bool {
        let url = self.fill(PathSegment("w"), PathSegment("u"));
        ServiceUrl::try_from(url).is_ok_and(|url| url.is_private())
    }
}

/// Text that stays one segment of a path even if a proxy or a server decodes and normalizes the path.
///
/// It contains only ASCII letters, digits and `-._~@:|+=`, which suffice for UUIDs, e-mail addresses and common ids,
/// and not only dots. Other characters could change the path once they are decoded: `/`, `\`, `;`, `?`, `#`, `%`, and
/// those that are normalized to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathSegment<'a>(&'a str);

impl<'a> PathSegment<'a> {
    /// `None` if the text is not a plain segment.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:|+=".contains(&byte);
        let is_segment = text.bytes().all(is_plain) && text.bytes().any(|byte| byte != b'.');
        is_segment.then_some(Self(text))
    }

    fn escaped(self) -> PercentEncode<'a> {
        utf8_percent_encode(self.0, SEGMENT)
    }
}

/// All characters except the unreserved ones of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn template() -> UrlTemplate {
        UrlTemplate::parse("http://app/api/{workspace}/members/{user}").unwrap()
    }

    fn fill(workspace: &str, user: &str) -> Option<String> {
        let segments = PathSegment::parse(workspace).zip(PathSegment::parse(user));
        segments.map(|(workspace, user)| template().fill(workspace, user))
    }

    /// The segments of a path as a careless proxy or server reads them: decoded `decoded` times, without parameters,
    /// with `\\` as `/`, and without dot segments.
    fn normalised(url: &str, decoded: usize) -> Vec<String> {
        let mut path = url.strip_prefix("http://app").unwrap().to_owned();
        for _ in 0..decoded {
            path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        }
        let path = path.replace('\\', "/");
        let path = path.split(['?', '#']).next().unwrap();
        let mut segments: Vec<String> = Vec::new();
        for segment in path.split('/').skip(1) {
            let segment = segment.split(';').next().unwrap();
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment.to_owned()),
            }
        }
        segments
    }

    #[test]
    fn common_ids_fill_a_template() {
        for (id, filled) in [
            (
                "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab",
                "6f1c2a52-0a4e-4e0c-9d6c-3d3ea4c1f3ab",
            ),
            ("org_123", "org_123"),
            ("42", "42"),
            ("auth0|abc", "auth0%7Cabc"),
            ("ada+test@example.com", "ada%2Btest%40example.com"),
            ("urn:uuid:7", "urn%3Auuid%3A7"),
            ("R2F0ZQ==", "R2F0ZQ%3D%3D"),
            ("v1.2~beta", "v1.2~beta"),
            ("..a", "..a"),
        ] {
            let expected = format!("http://app/api/{filled}/members/{filled}");
            assert_eq!(fill(id, id), Some(expected), "{id}");
        }
    }

    #[test]
    fn ids_that_could_change_the_path_are_rejected() {
        for id in [
            "",
            ".",
            "..",
            "...",
            "../public/x",
            "a/b",
            "/",
            "a\\b",
            "..;",
            "a;b",
            "a?b",
            "a#b",
            "%",
            "%2e%2e",
            "%252e",
            "..%2f",
            "a b",
            "a&b",
            "{user}",
            "ä",
            "．．",
            "／",
            "‥",
            "a\u{200b}b",
            "a\nb",
        ] {
            assert_eq!(fill(id, "user_1"), None, "{id:?} as a workspace");
            assert_eq!(fill("ws_1", id), None, "{id:?} as a user");
        }
    }

    #[test]
    fn placeholders_must_come_after_the_host() {
        for (template, is_good) in [
            ("http://app/{workspace}/{user}", true),
            ("https://app:8443/members?w={workspace}&u={user}", true),
            ("https://app.example.com/{workspace}.json/{user}", true),
            ("https://{workspace}.example.com/{user}", false),
            ("https://app.example.com{workspace}/{user}", false),
            ("http:\\\\{workspace}/{user}", false),
            ("http://{user}@app/{workspace}", false),
            ("http://app/{workspace}", false),
            ("http://app/{workspace}#{user}", false),
            ("{workspace}/{user}", false),
        ] {
            let read = UrlTemplate::parse(template);
            assert_eq!(read.is_ok(), is_good, "{template}: {read:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_filled_in_id_stays_one_segment(
            workspace in "[.%/\\\\;?#2eEfF5cC|@a]{1,6}|\\PC{1,4}",
            user in "[.%/\\\\;?#2eEfF5cC|@a]{1,6}|\\PC{1,4}",
            decoded in 0..4_usize,
        ) {
            if let Some(url) = fill(&workspace, &user) {
                let segments = normalised(&url, decoded);
                prop_assert_eq!(segments.len(), 4, "{}", url);
                prop_assert_eq!((segments[0].as_str(), segments[2].as_str()), ("api", "members"));
                if decoded > 0 {
                    prop_assert_eq!((&segments[1], &segments[3]), (&workspace, &user));
                }
            }
        }

        #[test]
        fn different_ids_give_different_urls(
            one in ("[a-c|@.]{1,3}", "[a-c|@.]{1,3}"),
            other in ("[a-c|@.]{1,3}", "[a-c|@.]{1,3}"),
        ) {
            let (first, second) = (fill(&one.0, &one.1), fill(&other.0, &other.1));
            prop_assert!(first.is_none() || (first == second) == (one == other));
        }
    }
}
