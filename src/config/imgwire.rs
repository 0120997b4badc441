//! `[imgwire]`: the service that creates the tokens.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

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
    /// The base URL of Imgwire's API. It must be https, or http on this machine. Default: `"https://api.imgwire.dev"`.
    #[serde(default)]
    pub base_url: BaseUrl,
    /// Your Server API Key (`sk_...`).
    pub api_key: SecretSource,
    /// The environment in which to create tokens, sent as `X-Environment-Id`. Needed only if the API key is not scoped
    /// to one environment. Default: none.
    #[serde(default)]
    pub environment_id: Option<EnvironmentId>,
    /// The Client Key (`ck_...`) that your pages upload with. It is public. With it, `doctor --probe` and `audit` try
    /// whether an upload without a token is refused. Default: none.
    #[serde(default)]
    pub client_key: Option<ClientKey>,
    /// The timeout of one attempt. Default: `"5s"`.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// The maximum duration of all attempts together, with the waits between them. Default: `"10s"`.
    #[serde(default = "default_deadline")]
    pub deadline: Interval,
    /// How many times to retry a failed attempt, at most 10. Default: 2.
    #[serde(default)]
    pub retries: Retries,
    /// The circuit breaker. While it is open, requests fail at once instead of waiting for Imgwire. Default:
    /// `{ failures = 20, probe = "500ms" }`.
    #[serde(default)]
    pub breaker: BreakerSettings,
    /// How often the gate repeats what `doctor` tries at Imgwire, at least `"1m"`. With `client_key`, it also tries an
    /// upload without a token. If several gates share a store, one of them does it. Default: never.
    #[serde(default)]
    pub audit: Option<AuditInterval>,
    /// Creates tokens ahead of demand. Default: none; the gate then creates each token on request.
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
            "is a Client Key; use a Server API Key (sk_...)"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "must contain only visible ASCII characters"
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
#[schemars(extend("examples" = [{ "failures": 20 }]))]
pub struct BreakerSettings {
    /// How many attempts in a row must fail before the breaker opens. Default: 20.
    pub failures: NonZeroU32,
    /// How often the gate probes Imgwire in the background while the breaker is open. Default: `"500ms"`.
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
#[schemars(extend("examples" = [{ "size": 64, "max_age": "2m" }]))]
pub struct PoolSettings {
    /// The maximum number of tokens to keep ready.
    pub size: NonZeroUsize,
    /// The maximum age of a token when it is issued. Choose less than the lifetime of Imgwire's tokens.
    pub max_age: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(5)
}

fn default_deadline() -> Interval {
    Interval::from_secs(10)
}

/// The base URL of Imgwire's API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "a URL", "examples" = ["https://api.imgwire.dev"]))]
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
            format!("`{text}` is not a URL; write for example \"https://api.imgwire.dev\"")
        })?;
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            Err("must use https, because requests carry the API key; http is allowed only on this machine".to_owned())
        } else if !url.username().is_empty() || url.password().is_some() {
            Err("must not contain a user name or a password".to_owned())
        } else if url.query().is_some() || url.fragment().is_some() {
            Err("must not contain a query or a fragment".to_owned())
        } else if url.path() != "/" {
            let origin = url.origin().ascii_serialization();
            Err(format!(
                "must not contain a path, because the gate adds those of Imgwire's API; write \"{origin}\""
            ))
        } else {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        }
    }
}

/// A value of the header `X-Environment-Id`: visible ASCII characters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["env_1"]))]
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
            Err("must be one or more visible ASCII characters")
        }
    }
}

/// A Client Key, which is public.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["ck_0123456789"]))]
pub struct ClientKey(String);

impl ClientKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClientKey {
    type Error = &'static str;

    // Errors do not show the text, because it may be a Server API Key.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with("sk_") {
            Err(
                "is a Server API Key, which must not stand in a config file; write a Client Key (ck_...)",
            )
        } else if text.starts_with("ck_") && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("must be a Client Key (ck_...)")
        }
    }
}

/// How often the gate audits Imgwire, at least a minute because each audit creates a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Interval")]
#[schemars(with = "Interval")]
pub struct AuditInterval(Interval);

impl AuditInterval {
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0.get()
    }
}

impl TryFrom<Interval> for AuditInterval {
    type Error = &'static str;

    fn try_from(interval: Interval) -> Result<Self, Self::Error> {
        const MIN: Duration = Duration::from_secs(60);

        if interval.get() >= MIN {
            Ok(Self(interval))
        } else {
            Err("must be at least \"1m\"; write for example \"6h\"")
        }
    }
}

/// How many times to retry a failed attempt, at most 10.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "u8")]
#[schemars(with = "u8")]
#[schemars(extend("examples" = [2]))]
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
