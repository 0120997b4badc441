//! `kind = "forwarded"`: what a trusted proxy says.

use std::collections::BTreeMap;

use actix_web::http::header;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{default_ambient, issuer::SubjectPrefix, no_prefix};

/// `kind = "forwarded"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardedSettings {
    /// The header that holds the subject's id.
    pub subject: HeaderName,
    /// What the subject's id begins with, so that it differs from equal ids of another identity.
    #[serde(default = "no_prefix")]
    pub subject_prefix: SubjectPrefix,
    /// Headers that hold claims, by the claim's name. A value with commas is a list.
    #[serde(default)]
    pub claims: BTreeMap<String, HeaderName>,
    /// Whether a browser may send by itself what the proxy derives these headers from: then they are accepted from the
    /// gate's own pages and the allowed origins only.
    #[serde(default = "default_ambient")]
    pub ambient: bool,
}

/// The name of a header, which a proxy sets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct HeaderName(pub header::HeaderName);

impl TryFrom<String> for HeaderName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name: header::HeaderName = text
            .parse()
            .map_err(|_| format!("`{text}` is no name of a header"))?;
        if [header::AUTHORIZATION, header::COOKIE].contains(&name) {
            Err(format!("`{text}` is sent by clients, not by a proxy"))
        } else {
            Ok(Self(name))
        }
    }
}
