//! `kind = "jwt"`: JSON Web Tokens (RFC 7519), and the keys that they are verified with.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use policies::{SecretSource, ServiceUrl};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    ClaimValues, Leeway, TokenSource, default_ambient, default_from, default_leeway,
    default_subject_claim,
    issuer::{Issuers, SubjectPrefix},
    no_prefix,
};
use crate::{
    keys::{Key, KeySet},
    settings::secret::SecretSources,
};

/// `kind = "jwt"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The algorithms that are accepted, whatever a token says.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// The shared secret of HS256, HS384 and HS512, or a list of secrets that are all valid while one replaces another.
    #[serde(default)]
    pub secret: Option<SecretSources>,
    /// The public key in PEM of the other algorithms.
    #[serde(default)]
    pub public_key: Option<SecretSource>,
    /// A JSON Web Key Set (RFC 7517) in a file.
    #[serde(default)]
    pub jwks: Option<SecretSource>,
    /// Where the issuer publishes its JSON Web Key Set; fetched at start and again in the background.
    #[serde(default)]
    pub jwks_url: Option<ServiceUrl>,
    /// Finds the key set by OpenID Connect Discovery: `<issuer>/.well-known/openid-configuration`.
    #[serde(default)]
    #[schemars(with = "bool")]
    pub discovery: Option<bool>,
    /// Lets keys be fetched over plain http from other machines: whoever is on the way can then sign in as
    /// anyone.
    #[serde(default)]
    pub insecure_http: bool,
    /// The issuer that `iss` must name, or a list of issuers. `{tid}` in one stands for the claim `tid`, which
    /// `required_claims` or `allowed_claims` must restrict.
    #[serde(default)]
    pub issuer: Option<Issuers>,
    /// The audiences of which `aud` must name one.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub audience: Option<Vec<String>>,
    /// Other claims that the token must have, for example `{ token_use = "access" }`.
    #[serde(default)]
    pub required_claims: ClaimValues,
    /// Claims that must have one of these values if the token has them, for example
    /// `{ azp = ["https://app.example.com"] }`.
    #[serde(default)]
    pub allowed_claims: ClaimValues,
    /// Where the token is looked for: `"bearer"`, `"cookie:NAME"`, or `"header:NAME"`, with or without `Bearer ` before
    /// the token.
    #[serde(default = "default_from")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub from: Vec<TokenSource>,
    /// Whether a browser may send its headers by itself, or a proxy may derive them from what a browser sends: then
    /// they are accepted from the gate's own pages and the allowed origins only. `Authorization` is never checked for
    /// this, and cookies always are.
    #[serde(default = "default_ambient")]
    pub ambient: bool,
    /// The claim that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    pub subject_claim: String,
    /// What the subject's id begins with, so that equal ids of two issuers are two users; `{iss}` is the token's
    /// issuer.
    #[serde(default = "no_prefix")]
    pub subject_prefix: SubjectPrefix,
    /// How far the clocks may be apart.
    #[serde(default = "default_leeway")]
    pub leeway: Leeway,
}

/// Where the keys of an identity come from; exactly one of five.
#[derive(Clone, Copy, Debug)]
pub enum KeySource<'a> {
    /// `secret`
    Secret(&'a SecretSources),
    /// `public_key`
    PublicKey(&'a SecretSource),
    /// `jwks`
    Jwks(&'a SecretSource),
    /// `jwks_url`
    JwksUrl(&'a ServiceUrl),
    /// `discovery`
    Discovery(&'a bool),
}

impl KeySource<'_> {
    /// Its key in the config.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::PublicKey(_) => "public_key",
            Self::Jwks(_) => "jwks",
            Self::JwksUrl(_) => "jwks_url",
            Self::Discovery(_) => "discovery",
        }
    }
}

impl JwtSettings {
    /// The sources of keys that the config names; it is to name one.
    #[must_use]
    pub fn key_sources(&self) -> Vec<KeySource<'_>> {
        let discovery = self.discovery.as_ref();
        [
            self.secret.as_ref().map(KeySource::Secret),
            self.public_key.as_ref().map(KeySource::PublicKey),
            self.jwks.as_ref().map(KeySource::Jwks),
            self.jwks_url.as_ref().map(KeySource::JwksUrl),
            discovery
                .filter(|discovery| **discovery)
                .map(KeySource::Discovery),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The keys of an identity, or where they are.
#[derive(Clone, Debug)]
pub enum KeyMaterial {
    /// Keys of the config, whatever a token's `kid` says: each once for each algorithm.
    Fixed(Vec<Arc<Key>>),
    /// A key set from a file.
    Set(KeySet),
    /// A key set that the issuer publishes.
    Published(Location),
}

/// Where an issuer publishes its key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Under this URL.
    Jwks(ServiceUrl),
    /// Where the issuer's discovery document says.
    Discovery {
        /// The issuer, which the document must name, too.
        issuer: String,
        /// Whether plain http to other machines is allowed.
        insecure_http: bool,
    },
}
