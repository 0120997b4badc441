//! `[imgwire]`: the service on the other side.

use std::num::{NonZeroU32, NonZeroUsize};

use policies::Interval;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::service_url::is_loopback;

use super::{
    document::Reader,
    secret::{self, Environment, SecretSource},
};

/// `[imgwire]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImgwireSettings {
    /// Where Imgwire is; `https`, or `http` on this machine.
    #[serde(default)]
    pub base_url: BaseUrl,
    /// The Server API Key (`sk_...`).
    pub api_key: SecretSource,
    /// The environment, for a key that is not scoped to one: sent as `X-Environment-Id`.
    #[serde(default)]
    pub environment_id: Option<EnvironmentId>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// How long all attempts together may take.
    #[serde(default = "default_deadline")]
    pub deadline: Interval,
    /// How many times a failed attempt is repeated, 10 at most.
    #[serde(default)]
    pub retries: Retries,
    /// The circuit breaker: while Imgwire is down, requests fail at once.
    #[serde(default)]
    pub breaker: BreakerSettings,
    /// Makes tokens ahead; left out: each is made when it is asked for.
    #[serde(default)]
    pub pool: Option<PoolSettings>,
}

impl ImgwireSettings {
    pub(crate) fn load_api_key(
        &self,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) -> Option<SecretString> {
        const PATH: &str = "imgwire.api_key";

        let key = secret::read(reader, environment, PATH, &self.api_key, 1)?;
        let text = key.expose_secret();
        let fault = if text.starts_with("ck_") {
            "is a Client Key; the Server API Key (sk_...) is needed"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "has characters that no key has"
        } else {
            return Some(key);
        };
        reader.fault(PATH, fault);
        None
    }
}

/// `[imgwire] breaker`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// How many attempts in a row must fail until Imgwire counts as down.
    pub failures: NonZeroU32,
    /// How often the gate then tries Imgwire, beside the requests.
    pub probe: Interval,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: const { NonZeroU32::new(20).expect("20 is not zero") },
            probe: Interval::from_millis(500),
        }
    }
}

/// `[imgwire] pool`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// How many tokens are kept at most.
    pub size: NonZeroUsize,
    /// How old one may be when it is handed out.
    pub max_age: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(5)
}

fn default_deadline() -> Interval {
    Interval::from_secs(10)
}

/// The base of Imgwire's API, without a trailing slash.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct BaseUrl(String);

impl BaseUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for BaseUrl {
    fn default() -> Self {
        Self("https://api.imgwire.dev".to_owned())
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = Url::parse(&text).map_err(|_| {
            format!("`{text}` is no URL; write for example \"https://api.imgwire.dev\"")
        })?;
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            Err("must be https, for it carries the key; http only on this machine".to_owned())
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("must not carry a user or a password".to_owned())
        } else if url.query().is_some() || url.fragment().is_some() {
            Err("must not have a query or a fragment".to_owned())
        } else {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        }
    }
}

/// A value of the header `X-Environment-Id`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct EnvironmentId(String);

impl EnvironmentId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EnvironmentId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("must be visible ASCII characters")
        }
    }
}

/// How many times a failed attempt is repeated.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "u8")]
#[schemars(with = "u8")]
pub struct Retries(u8);

impl Retries {
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self(2)
    }
}

impl TryFrom<u8> for Retries {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if number <= 10 {
            Ok(Self(number))
        } else {
            Err("must be at most 10")
        }
    }
}
