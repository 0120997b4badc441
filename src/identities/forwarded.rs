//! `kind = "forwarded"`: the user that a trusted proxy reports, for example oauth2-proxy, Authelia, or the forward
//! authentication of Traefik, nginx or Caddy.

use std::{collections::BTreeMap, fmt, future::ready, sync::Arc};

use actix_web::http::header::{self, HeaderName, HeaderValue};
use policies::{Claims, Denial, IdentityName, Subject};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    auth_request::AuthRequest,
    claims::ClaimFilter,
    issuer::SubjectPrefix,
    kind::{AuthError, Authentication, Build, Identity, IdentityKind},
    profile::{Place, Profile},
    request_view::{RequestView, default_ambient},
    section::Section,
};
use crate::telemetry::REFUSED;

/// The user that a trusted proxy reports.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForwardedSettings {
    /// The header that holds the subject's id.
    subject: ProxyHeader,
    /// The prefix of the subject's id, so that it differs from equal ids of another identity. Default: none.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// Headers that hold claims, by the claim's name: `"X-Email"` for a text, `{ header = "X-Groups", list = "," }` for a
    /// list. Default: none.
    #[serde(default)]
    claims: BTreeMap<String, HeaderClaim>,
    /// Whether the proxy may derive these headers from what a browser sends by itself. If so, the gate accepts them only
    /// from its own pages and the allowed origins.
    #[serde(default = "default_ambient")]
    ambient: bool,
}

/// A header that a proxy sets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["X-Auth-Request-User"]))]
struct ProxyHeader(HeaderName);

impl TryFrom<String> for ProxyHeader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name: HeaderName = text
            .parse()
            .map_err(|_| format!("`{text}` is not a valid header name"))?;
        if [header::AUTHORIZATION, header::COOKIE].contains(&name) {
            Err(format!("`{text}` comes from clients, not from a proxy"))
        } else {
            Ok(Self(name))
        }
    }
}

/// A claim in a header: its name, or a table, which can declare a list.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
enum HeaderClaim {
    /// A text in this header.
    Named(ProxyHeader),
    /// A list or a text.
    Declared(DeclaredHeader),
}

/// A header that may be a list. The values of several headers of this name are one list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeclaredHeader {
    /// The header.
    header: ProxyHeader,
    /// What separates the entries of a list. Spaces around an entry and empty entries are dropped. Default: none; the value is
    /// one text.
    #[serde(default)]
    #[schemars(length(min = 1))]
    list: Option<Separator>,
}

impl<'de> Deserialize<'de> for HeaderClaim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimVisitor;

        impl<'de> Visitor<'de> for ClaimVisitor {
            type Value = HeaderClaim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a header, or { header = \"...\", list = \",\" }")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<HeaderClaim, E> {
                let header = ProxyHeader::try_from(name.to_owned()).map_err(E::custom)?;
                Ok(HeaderClaim::Named(header))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderClaim, A::Error> {
                DeclaredHeader::deserialize(MapAccessDeserializer::new(map))
                    .map(HeaderClaim::Declared)
            }
        }

        deserializer.deserialize_any(ClaimVisitor)
    }
}

/// The text between the entries of a list, for example `,` or `;` or a space.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = [","]))]
struct Separator(String);

impl TryFrom<String> for Separator {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let visible = text.trim_matches(' ');
        if text.is_empty() || text.chars().any(char::is_control) {
            Err("must be the text between two entries, for example \",\"".to_owned())
        } else if visible.is_empty() {
            // Any number of spaces separates entries, because empty entries are dropped.
            Ok(Self(" ".to_owned()))
        } else if visible == text {
            Ok(Self(text))
        } else {
            Err(format!(
                "write \"{visible}\"; spaces around entries are dropped"
            ))
        }
    }
}

impl IdentityKind for ForwardedSettings {
    const NAME: &'static str = "forwarded";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: vec![Place::Forwarded(&self.subject.0)],
            subject_prefix: Some(&self.subject_prefix),
            ..Profile::default()
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        section.check_literal_prefix(&self.subject_prefix);
        let proxies = section.others.server.map(|server| &server.trusted_proxies);
        if proxies.is_some_and(Vec::is_empty) {
            let message =
                "needs `trusted_proxies` in [server]: the gate ignores the headers of other peers";
            section.fault("", message);
        } else if let Some(network) =
            proxies.and_then(|all| all.iter().find(|network| network.is_too_wide()))
        {
            let message = format!(
                "any client can sign in as any user, because `trusted_proxies` has {}; write only the addresses of \
                 your proxies",
                network.0
            );
            section.warning("", message);
        }
        Some(Box::new(move |context| {
            Arc::new(Forwarded {
                name: context.name.clone(),
                claim_filter: context.claim_filter().clone(),
                settings: self.clone(),
            })
        }))
    }
}

/// Reads the headers of trusted proxies, and ignores those of other peers.
struct Forwarded {
    name: IdentityName,
    claim_filter: ClaimFilter,
    settings: Arc<ForwardedSettings>,
}

impl Identity for Forwarded {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(ready(self.read(request)))
    }
}

impl Forwarded {
    fn read(&self, request: &AuthRequest<'_>) -> Result<Option<Arc<Subject>>, AuthError> {
        if !request.is_from_proxy() {
            return Ok(None);
        }
        let subject = self.parse(request.view());
        let subject = subject.map_err(Denial::InvalidCredentials)?;
        // The proxy may derive the subject from a credential that the browser sent by itself.
        if subject.is_some() && self.settings.ambient {
            request.check_origin()?;
        }
        Ok(subject.map(Arc::new))
    }

    fn parse(&self, view: &dyn RequestView) -> Result<Option<Subject>, String> {
        let subject = &self.settings.subject.0;
        let id = single_header(view, subject).map_err(|error| error.to_string())?;
        let Some(id) = id else {
            return Ok(None);
        };
        let mut claims = Claims::new();
        for (claim, header) in &self.settings.claims {
            match header.read(view) {
                Ok(Some(value)) => {
                    claims.insert(claim.clone(), value);
                }
                Ok(None) => {}
                // A name in another encoding must not keep its user out. Clients can cause this line at will, so it counts
                // among those about malformed requests, which are limited.
                Err(HeaderError::NotUtf8(header)) => tracing::warn!(
                    target: REFUSED,
                    identity = self.name.as_str(),
                    claim,
                    header = header.as_str(),
                    "forwarded claim ignored: its header is not UTF-8"
                ),
                Err(error) => return Err(error.to_string()),
            }
        }
        let id = self.settings.subject_prefix.apply(id, None);
        let id = id.map_err(|fault| format!("`{}` {fault}", subject))?;
        Ok(Some(Subject {
            id,
            identity: self.name.clone(),
            session: false,
            claims: self.claim_filter.apply(&claims)?,
            expires_at: None,
        }))
    }
}

impl HeaderClaim {
    /// Returns the claim, if the request has it.
    fn read(&self, view: &dyn RequestView) -> Result<Option<Value>, HeaderError> {
        let (header, separator) = match self {
            Self::Named(header) => (&header.0, None),
            Self::Declared(declared) => (&declared.header.0, declared.list.as_ref()),
        };
        let Some(Separator(separator)) = separator else {
            return Ok(single_header(view, header)?.map(Value::from));
        };
        let mut list = None;
        for line in values(view, header)? {
            let entries = text(header, line)?.split(separator).map(trim);
            let list = list.get_or_insert_with(Vec::new);
            list.extend(entries.filter(|entry| !entry.is_empty()).map(Value::from));
        }
        Ok(list.map(Value::from))
    }
}

/// Why a header is not used.
#[derive(Debug, thiserror::Error)]
enum HeaderError {
    /// A client may have sent one of them past the proxy.
    #[error("`{0}` also occurs with `_` instead of `-`")]
    Twin(HeaderName),
    #[error("`{0}` occurs twice")]
    Twice(HeaderName),
    #[error("`{0}` is not UTF-8")]
    NotUtf8(HeaderName),
}

/// Returns all values of a header.
fn values<'a>(
    view: &'a dyn RequestView,
    name: &HeaderName,
) -> Result<impl Iterator<Item = &'a HeaderValue>, HeaderError> {
    let headers = view.headers();
    let is_twin = |other: &HeaderName| {
        other != name
            && other.as_str().len() == name.as_str().len()
            && std::iter::zip(other.as_str().bytes(), name.as_str().bytes())
                .all(|(a, b)| a == b || matches!((a, b), (b'_', b'-') | (b'-', b'_')))
    };
    if headers.keys().any(is_twin) {
        return Err(HeaderError::Twin(name.clone()));
    }
    Ok(headers.get_all(name))
}

/// Returns the only value of a header, or `None` if it is empty.
fn single_header<'a>(
    view: &'a dyn RequestView,
    name: &HeaderName,
) -> Result<Option<&'a str>, HeaderError> {
    let mut values = values(view, name)?;
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // A client may have sent one of them past the proxy.
        (Some(_), Some(_)) => Err(HeaderError::Twice(name.clone())),
        (Some(value), None) => {
            let text = text(name, value)?;
            Ok((!text.is_empty()).then_some(text))
        }
    }
}

fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, HeaderError> {
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| HeaderError::NotUtf8(name.clone()))?;
    Ok(trim(text))
}

/// Removes the white space that HTTP allows around a value (RFC 9110, 5.6.3). Other blanks are part of the text:
/// without them, different users would have the same id.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
