//! Where credentials are looked for.

use actix_web::http::header::{self, AUTHORIZATION, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::session::CookieName;

/// The places of an identity that names none: the bearer token.
pub(super) fn default_from() -> Vec<TokenSource> {
    vec![TokenSource::Bearer]
}

/// Whether headers may hold what a browser or a proxy adds by itself, if an identity does not say.
pub(super) const fn default_ambient() -> bool {
    true
}

/// Where a credential is looked for: `"bearer"`, `"cookie:NAME"` or `"header:NAME"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline)]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// A cookie, which a browser sends by itself.
    Cookie(CookieName),
    /// A header of its own.
    Header(HeaderName),
}

impl TokenSource {
    /// Whether both are the same header or cookie.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bearer, Self::Header(name)) | (Self::Header(name), Self::Bearer) => {
                *name == AUTHORIZATION
            }
            _ => self == other,
        }
    }
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
            let name: HeaderName = name.parse().map_err(|_| fault())?;
            if name == header::COOKIE {
                // Read as a header it would pass the cross-site check, and hold every other cookie, too.
                return Err("write \"cookie:NAME\" for a cookie, not \"header:cookie\"".to_owned());
            }
            Ok(Self::Header(name))
        } else {
            Err(fault())
        }
    }
}
