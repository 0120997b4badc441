//! The settings of a `jwt` identity.

use jsonwebtoken::Algorithm;
use policies::{ByteCount, ClaimPath, SecretSource};
use schemars::JsonSchema;
use serde::Deserialize;

use super::discovery::Discovery;
use crate::{
    config::{
        ServiceUrl,
        secret::{SecretEncoding, SecretSources},
    },
    identities::{
        claim_values::{ClaimValues, RequiredScopes},
        claims::{ClaimRules, Leeway, default_subject_claim},
        issuer::{Issuers, SubjectPrefix},
        keys::algorithm::deserialize_algorithms,
        request_view::{TokenSource, default_ambient, default_from},
    },
};

/// A JSON Web Token (RFC 7519).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtSettings {
    /// The accepted algorithms. A token cannot choose another one.
    #[serde(deserialize_with = "deserialize_algorithms")]
    #[schemars(with = "Vec<String>", length(min = 1), extend("examples" = [["HS256"]]))]
    pub(super) algorithms: Vec<Algorithm>,
    /// The shared secret of HS256, HS384 and HS512, or a list of valid secrets, for example during a rotation.
    /// Default: none.
    #[serde(default)]
    pub(super) secret: Option<SecretSources>,
    /// How `secret` is encoded: `"base64"`, `"base64url"` or `"hex"`, or `"raw"` for a file that may have any bytes, all of
    /// which belong to the secret. Default: the secret is text.
    #[serde(default)]
    pub(super) secret_encoding: Option<SecretEncoding>,
    /// The public key in PEM of the other algorithms. Default: none.
    #[serde(default)]
    pub(super) public_key: Option<SecretSource>,
    /// A JSON Web Key Set (RFC 7517) in a file. Its keys may be public, or shared secrets (`oct`). Default: none.
    #[serde(default)]
    pub(super) jwks: Option<SecretSource>,
    /// The URL of the issuer's JSON Web Key Set, which the gate fetches at the start and then in the background.
    /// Default: none.
    #[serde(default)]
    pub(super) jwks_url: Option<ServiceUrl>,
    /// Finds the key set by OpenID Connect Discovery: `true` for `<issuer>/.well-known/openid-configuration`, or the URL of
    /// the document, which must have the same issuer. Default: `false`.
    #[serde(default = "no_discovery")]
    pub(super) discovery: Discovery,
    /// Allows the gate to fetch keys over plain http from other machines. An attacker on the network can then sign in as
    /// any user.
    #[serde(default)]
    pub(super) insecure_http: bool,
    /// The issuer in `iss`, or a list of issuers. An issuer may have the placeholder `{tid}` for the claim `tid`, which
    /// `required_claims` or `allowed_claims` must restrict. Default: none; every issuer is accepted.
    #[serde(default)]
    pub(super) issuer: Option<Issuers>,
    /// `aud` must contain one of these audiences. Default: none; `aud` is not checked.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) audience: Option<Vec<String>>,
    /// Other claims that the token must have, for example `{ token_use = "access" }`. Default: none.
    #[serde(default)]
    pub(super) required_claims: ClaimValues,
    /// Claims that must have one of these values if the token has them, for example
    /// `{ azp = ["https://app.example.com"] }`. Default: none.
    #[serde(default)]
    pub(super) allowed_claims: ClaimValues,
    /// Scopes that the token must have in `scope` or `scp`, which is a list or a string with spaces. Default: none.
    #[serde(default)]
    pub(super) required_scopes: RequiredScopes,
    /// The places of the token: `"bearer"`, `"cookie:NAME"`, or `"header:NAME"`, with or without `Bearer ` before the
    /// token. Default: `["bearer"]`.
    #[serde(default = "default_from")]
    #[schemars(length(min = 1))]
    pub(super) from: Vec<TokenSource>,
    /// Whether a browser may send the headers by itself, or a proxy may derive them from what a browser sends. If so, the
    /// gate accepts them only from its own pages and the allowed origins. This check always applies to cookies, and never
    /// to `Authorization`.
    #[serde(default = "default_ambient")]
    pub(super) ambient: bool,
    /// The claim that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    pub(super) subject_claim: ClaimPath,
    /// The prefix of the subject's id, so that equal ids of two issuers are two users. `{iss}` is the token's issuer.
    /// Default: none.
    #[serde(default)]
    pub(super) subject_prefix: SubjectPrefix,
    /// The allowed clock skew. Default: `"30s"`.
    #[serde(default)]
    pub(super) leeway: Leeway,
    /// The longest token. Default: `"16KiB"`.
    #[serde(default = "default_max_token_size")]
    pub(super) max_token_size: ByteCount,
}

const fn no_discovery() -> Discovery {
    Discovery::Off
}

const fn default_max_token_size() -> ByteCount {
    ByteCount::new(16 * 1024)
}

impl JwtSettings {
    pub(super) fn rules(&self) -> ClaimRules<'_> {
        ClaimRules {
            issuers: self.issuer.as_ref(),
            audience: self.audience.as_deref(),
            required: &self.required_claims,
            allowed: &self.allowed_claims,
            scopes: &self.required_scopes,
            requires_exp: true,
            subject_claim: &self.subject_claim,
            subject_prefix: &self.subject_prefix,
        }
    }
}
