//! `kind = "introspection"`: opaque tokens that their issuer is asked about (RFC 7662).

use policies::{Interval, SecretSource, ServiceUrl};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    ClaimValues, Leeway, TokenSource, default_ambient, default_from, default_leeway,
    default_subject_claim, default_timeout,
    issuer::{Issuers, SubjectPrefix},
    no_prefix,
};

/// `kind = "introspection"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionSettings {
    /// The introspection endpoint.
    pub url: ServiceUrl,
    /// Who the gate is to the issuer.
    pub client_id: String,
    /// The secret that it says so with.
    pub client_secret: SecretSource,
    /// How it says so.
    #[serde(default)]
    pub auth_method: AuthMethod,
    /// Lets tokens and the client's secret travel over plain http to other machines.
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
    /// Other members that the answer must have, for example `{ client_id = "spa" }`.
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
    /// The member of the answer that holds the subject's id.
    #[serde(default = "default_subject_claim")]
    pub subject_claim: String,
    /// What the subject's id begins with, so that equal ids of two issuers are two users; `{iss}` is the token's
    /// issuer.
    #[serde(default = "no_prefix")]
    pub subject_prefix: SubjectPrefix,
    /// How far the clocks may be apart.
    #[serde(default = "default_leeway")]
    pub leeway: Leeway,
    /// How long an answer is remembered, never past the token's `exp`; left out: not at all.
    #[serde(default)]
    pub cache: Option<Interval>,
    /// How long the issuer may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

/// How a client says who it is (RFC 6749, 2.3.1), by the names of RFC 7591.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// By HTTP Basic authentication.
    #[default]
    ClientSecretBasic,
    /// In the form.
    ClientSecretPost,
}
