//! What a trusted proxy says: oauth2-proxy, Authelia, or the forward authentication of Traefik, nginx, Caddy.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::http::header::HeaderName;
use policies::{Claims, Denial, IdentityName, Presented, Subject};
use serde_json::Value;

use super::{client_address::ClientAddress, cross_site::CrossSite, request_view::RequestView};
use crate::settings::{ForwardedSettings, identities::issuer::SubjectPrefix};

/// Believes headers of trusted proxies, and of nobody else.
pub(super) struct Forwarded {
    name: IdentityName,
    subject: HeaderName,
    subject_prefix: SubjectPrefix,
    claims: BTreeMap<String, HeaderName>,
    ambient: bool,
    proxies: ClientAddress,
}

impl Forwarded {
    /// Builds the identity `name`.
    #[must_use]
    pub(super) fn new(
        name: IdentityName,
        settings: &ForwardedSettings,
        proxies: ClientAddress,
    ) -> Self {
        let claims = settings.claims.iter();
        Self {
            name,
            subject: settings.subject.0.clone(),
            subject_prefix: settings.subject_prefix.clone(),
            claims: claims
                .map(|(claim, header)| (claim.clone(), header.0.clone()))
                .collect(),
            ambient: settings.ambient,
            proxies,
        }
    }

    /// Takes what the proxy says. From anyone else it is as if nothing were said.
    pub(super) fn present(&self, request: &dyn RequestView, cross_site: &CrossSite) -> Presented {
        if !self.proxies.is_from_proxy(request) {
            return Presented::Nothing;
        }
        match self.read(request) {
            Ok(None) => Presented::Nothing,
            Err(reason) => Presented::Refused(Denial::InvalidCredentials(reason)),
            // The browser may have sent by itself what the proxy knows the subject by.
            Ok(Some(subject)) => match cross_site.check(request) {
                Err(denial) if self.ambient => Presented::Refused(denial),
                _ => Presented::Subject(Arc::new(subject)),
            },
        }
    }

    fn read(&self, request: &dyn RequestView) -> Result<Option<Subject>, String> {
        // Without a subject nothing else of it matters.
        let Some(id) = only(request, &self.subject)? else {
            return Ok(None);
        };
        let mut values = Vec::new();
        for (claim, header) in &self.claims {
            if let Some(value) = only(request, header)? {
                values.push((claim.clone(), listed(value)));
            }
        }
        if id.contains(',') {
            // Two values that a proxy has joined: one of them may be a client's.
            return Err(format!("`{}` is a list", self.subject));
        }
        let id = self.subject_prefix.apply(id, None);
        let id = id.map_err(|fault| format!("`{}` {fault}", self.subject))?;
        Ok(Some(Subject {
            id,
            identity: self.name.clone(),
            session: false,
            claims: Claims::from_iter(values),
            expires_at: None,
        }))
    }
}

/// The one value of a header; nothing where it is empty. A header that stands there twice, or beside a twin
/// that differs in `_` for `-`, may be a client's that slipped past the proxy.
fn only<'a>(request: &'a dyn RequestView, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let headers = request.headers();
    let is_twin = |other: &HeaderName| {
        other != name
            && other.as_str().len() == name.as_str().len()
            && std::iter::zip(other.as_str().bytes(), name.as_str().bytes())
                .all(|(a, b)| a == b || matches!((a, b), (b'_', b'-') | (b'-', b'_')))
    };
    if headers.keys().any(is_twin) {
        return Err(format!("`{name}` has a twin with `_` for `-`"));
    }
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(format!("`{name}` stands there twice")),
        (Some(value), None) => {
            let text = std::str::from_utf8(value.as_bytes());
            let text = text.map_err(|_| format!("`{name}` is not UTF-8"))?.trim();
            Ok((!text.is_empty()).then_some(text))
        }
    }
}

/// A text, or what a comma list lists.
fn listed(value: &str) -> Value {
    if value.contains(',') {
        let items = value.split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).collect()
    } else {
        Value::from(value)
    }
}
