//! `discovery`: where the discovery document of a `jwt` identity is (OpenID Connect Discovery 1.0, 4).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    config::ServiceUrl,
    identities::{
        issuer::Issuers,
        keys::{Location, discovery_url},
        section::Section,
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    Off,
    /// Under the issuer.
    OfIssuer,
    Document(ServiceUrl),
}

impl Discovery {
    /// Returns the location of the document.
    pub(super) fn location(
        &self,
        issuers: Option<&Issuers>,
        insecure_http: bool,
        section: &mut Section<'_>,
    ) -> Option<Location> {
        let Some(issuers) = issuers else {
            let message = match self {
                Self::Document(_) => "needs `issuer`, which the document must have",
                _ => "needs `issuer`, under which the document is",
            };
            section.fault("discovery", message);
            return None;
        };
        let document = match self {
            Self::Document(document) => {
                section.check_https("discovery", document, insecure_http);
                if issuers.are_several() {
                    let message = "the keys of one document verify the tokens of all these issuers, so each of them can sign in the users of the others; write one identity per issuer";
                    section.warning("issuer", message);
                }
                document.clone()
            }
            _ => document_of(issuers, insecure_http, section)?,
        };
        Some(Location::Discovery {
            document,
            issuers: issuers.clone(),
            insecure_http,
        })
    }
}

fn document_of(
    issuers: &Issuers,
    insecure_http: bool,
    section: &mut Section<'_>,
) -> Option<ServiceUrl> {
    let Some(issuer) = issuers.literal() else {
        let message = "must be one issuer without `{tid}`, because `discovery = true` finds the keys under it; write the document's URL as `discovery`, or `jwks_url` instead of it";
        section.fault("issuer", message);
        return None;
    };
    // The issuer itself is checked, because the document's URL can be one although the issuer is not.
    let document = ServiceUrl::try_from(issuer.to_owned())
        .and_then(|_| ServiceUrl::try_from(discovery_url(issuer)));
    match document {
        Err(fault) => {
            section.fault("issuer", fault);
            None
        }
        Ok(document) => {
            section.check_https("issuer", &document, insecure_http);
            Some(document)
        }
    }
}

impl<'de> Deserialize<'de> for Discovery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Boolean(false) => Ok(Self::Off),
            toml::Value::Boolean(true) => Ok(Self::OfIssuer),
            toml::Value::String(url) if !url.contains("://") => Err(D::Error::custom(
                "must be true, or the URL of the discovery document, for example \"https://id.example.com/.well-known/openid-configuration\"",
            )),
            toml::Value::String(url) => {
                let url = ServiceUrl::try_from(url).map_err(D::Error::custom)?;
                Ok(Self::Document(url))
            }
            _ => Err(D::Error::custom(
                "must be true, or the URL of the discovery document",
            )),
        }
    }
}

impl JsonSchema for Discovery {
    fn schema_name() -> Cow<'static, str> {
        "Discovery".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"], "examples": [true] })
    }
}
