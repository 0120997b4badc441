//! `[identities.<name>]`: who a request may come from.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use policies::Interval;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_spanned::Spanned;

use super::{secret::SecretSource, session::CookieName};

/// The settings of one identity, by its kind.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(tag = "kind", rename_all = "snake_case")]
pub enum IdentitySettings {
    /// A JSON Web Token (RFC 7519) signed with a known key.
    Jwt(Box<JwtSettings>),
    /// The gate's own session cookie.
    Session(SessionIdentitySettings),
}

/// `kind = "session"`
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionIdentitySettings {}

/// `kind = "jwt"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The algorithms that are accepted, whatever a token says.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub algorithms: Spanned<Vec<Algorithm>>,
    /// The shared secret of HS256, HS384 and HS512.
    #[serde(default)]
    #[schemars(with = "Option<SecretSource>")]
    pub secret: Option<Spanned<SecretSource>>,
    /// The public key in PEM of the other algorithms.
    #[serde(default)]
    #[schemars(with = "Option<SecretSource>")]
    pub public_key: Option<Spanned<SecretSource>>,
    /// The issuer that `iss` must name.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The audiences of which `aud` must name one.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    pub audience: Option<Spanned<Vec<String>>>,
    /// Where the token is looked for; the first place that has one decides.
    #[serde(default = "default_from")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub from: Spanned<Vec<TokenSource>>,
    /// The claim that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    pub subject_claim: String,
    /// How far the clocks may be apart.
    #[serde(default = "default_leeway")]
    pub leeway: Leeway,
}

fn default_from() -> Spanned<Vec<TokenSource>> {
    Spanned::new(0..0, vec![TokenSource::Bearer])
}

fn default_subject_claim() -> String {
    "sub".to_owned()
}

fn default_leeway() -> Leeway {
    Leeway(Some(Interval::from_secs(30)))
}

/// How far two clocks may be apart: a duration, or `"0s"`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(with = "Interval")]
pub struct Leeway(Option<Interval>);

impl Leeway {
    /// In whole seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0.map_or(0, |leeway| leeway.get().as_secs())
    }
}

impl<'de> Deserialize<'de> for Leeway {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = toml::Value::deserialize(deserializer)?;
        if matches!(text.as_str(), Some("0" | "0s")) {
            return Ok(Self(None));
        }
        let leeway = Interval::deserialize(text).map_err(serde::de::Error::custom)?;
        if leeway <= Interval::from_secs(600) {
            Ok(Self(Some(leeway)))
        } else {
            Err(serde::de::Error::custom("must be at most 10 minutes"))
        }
    }
}

/// Where a token is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie, which a browser sends by itself.
    Cookie(CookieName),
    /// A header of its own.
    Header(actix_web::http::header::HeaderName),
}

impl TryFrom<String> for TokenSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("`{text}` must be \"bearer\", \"cookie:NAME\" or \"header:NAME\"");
        if text == "bearer" {
            Ok(Self::Bearer)
        } else if let Some(name) = text.strip_prefix("cookie:") {
            let name = CookieName::try_from(name.to_owned()).map_err(|_| fault())?;
            Ok(Self::Cookie(name))
        } else if let Some(name) = text.strip_prefix("header:") {
            let name = name.parse().map_err(|_| fault())?;
            Ok(Self::Header(name))
        } else {
            Err(fault())
        }
    }
}

/// A key that tokens are verified with.
#[derive(Clone)]
pub struct VerificationKey(pub DecodingKey);

impl std::fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerificationKey")
    }
}

impl VerificationKey {
    /// The least number of bytes of a shared secret for these algorithms: as many as the hash has (RFC
    /// 7518, 3.2).
    pub(super) fn least_secret(algorithms: &[Algorithm]) -> usize {
        let hash = |algorithm: &Algorithm| match algorithm {
            Algorithm::HS256 => 32,
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 1,
        };
        algorithms.iter().map(hash).max().unwrap_or(1)
    }

    pub(super) fn from_secret(secret: &SecretString) -> Self {
        Self(DecodingKey::from_secret(secret.expose_secret().as_bytes()))
    }

    /// Reads a public key in PEM that is to serve all of `algorithms`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that do not show it.
    pub(super) fn from_pem(pem: &SecretString, algorithms: &[Algorithm]) -> Result<Self, String> {
        let pem = pem.expose_secret();
        if pem.contains("PRIVATE KEY") {
            return Err("is a private key; the public one is needed".to_owned());
        }
        let family = algorithms.first().map(|algorithm| algorithm.family());
        let (key, expected) = match family {
            Some(AlgorithmFamily::Rsa) => (DecodingKey::from_rsa_pem(pem.as_bytes()), "RSA"),
            Some(AlgorithmFamily::Ec) => (DecodingKey::from_ec_pem(pem.as_bytes()), "EC"),
            _ => (DecodingKey::from_ed_pem(pem.as_bytes()), "Ed25519"),
        };
        key.map(Self)
            .map_err(|_| format!("is no {expected} public key in PEM"))
    }
}
