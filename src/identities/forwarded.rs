//! `kind = "forwarded"`: the user that a trusted proxy reports, for example oauth2-proxy, Authelia, or the forward
//! authentication of Traefik, nginx or Caddy.

use std::{collections::BTreeMap, future::ready, sync::Arc};

use actix_web::http::header;
use policies::{Claims, Denial, IdentityName, Subject};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    auth_request::AuthRequest,
    issuer::SubjectPrefix,
    kind::{AuthError, Authentication, Build, Identity, IdentityKind},
    profile::{Place, Profile},
    request_view::{RequestView, default_ambient},
    section::Section,
};

/// The user that a trusted proxy reports.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForwardedSettings {
    /// The header that holds the subject's id.
    subject: ProxyHeader,
    /// The prefix of the subject's id, so that it differs from equal ids of another identity.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// Headers that hold claims, by the claim's name. A value with commas is a list.
    #[serde(default)]
    claims: BTreeMap<String, ProxyHeader>,
    /// Whether the proxy may derive these headers from what a browser sends by itself. If so, the gate accepts them only
    /// from its own pages and the allowed origins.
    #[serde(default = "default_ambient")]
    ambient: bool,
}

/// A header that a proxy sets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
struct ProxyHeader(header::HeaderName);

impl TryFrom<String> for ProxyHeader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name: header::HeaderName = text
            .parse()
            .map_err(|_| format!("`{text}` is not a valid header name"))?;
        if [header::AUTHORIZATION, header::COOKIE].contains(&name) {
            Err(format!("`{text}` comes from clients, not from a proxy"))
        } else {
            Ok(Self(name))
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
                settings: self.clone(),
            })
        }))
    }
}

/// Reads the headers of trusted proxies, and ignores those of other peers.
struct Forwarded {
    name: IdentityName,
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
        let Some(id) = single_header(view, subject)? else {
            return Ok(None);
        };
        let mut values = Vec::new();
        for (claim, header) in &self.settings.claims {
            if let Some(value) = single_header(view, &header.0)? {
                values.push((claim.clone(), parse_value(value)));
            }
        }
        if id.contains(',') {
            // A proxy may have joined two values, of which a client wrote one.
            return Err(format!("`{}` is a list", subject));
        }
        let id = self.settings.subject_prefix.apply(id, None);
        let id = id.map_err(|fault| format!("`{}` {fault}", subject))?;
        Ok(Some(Subject {
            id,
            identity: self.name.clone(),
            session: false,
            claims: Claims::from_iter(values),
            expires_at: None,
        }))
    }
}

/// Returns `None` for an empty header. If a header occurs twice, or next to one that differs only in `_` and `-`, a
/// client may have sent it past the proxy.
fn single_header<'a>(
    view: &'a dyn RequestView,
    name: &header::HeaderName,
) -> Result<Option<&'a str>, String> {
    let headers = view.headers();
    let is_twin = |other: &header::HeaderName| {
        other != name
            && other.as_str().len() == name.as_str().len()
            && std::iter::zip(other.as_str().bytes(), name.as_str().bytes())
                .all(|(a, b)| a == b || matches!((a, b), (b'_', b'-') | (b'-', b'_')))
    };
    if headers.keys().any(is_twin) {
        return Err(format!("`{name}` also occurs with `_` instead of `-`"));
    }
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(format!("`{name}` occurs twice")),
        (Some(value), None) => {
            let text = std::str::from_utf8(value.as_bytes());
            let text = text.map_err(|_| format!("`{name}` is not UTF-8"))?.trim();
            Ok((!text.is_empty()).then_some(text))
        }
    }
}

/// A value with commas is a list.
fn parse_value(value: &str) -> Value {
    if value.contains(',') {
        let items = value.split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).collect()
    } else {
        Value::from(value)
    }
}
