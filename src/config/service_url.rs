//! URLs of other services.

use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

/// The http or https URL of a service, without a user name, a password or a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
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
        let url = Url::parse(&text)
            .map_err(|_| "is not a URL; write for example \"https://id.example.com/introspect\"")?;
        if !matches!(url.scheme(), "http" | "https") {
            Err("must be an http or https URL")
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
