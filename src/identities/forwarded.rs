//! `kind = "forwarded"`: what a trusted proxy says, for example oauth2-proxy, Authelia, or the forward authentication of
//! Traefik, nginx, Caddy.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::http::header;
use policies::{Claims, Denial, IdentityName, Presented, Subject};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    case::Case,
    credential::default_ambient,
    issuer::SubjectPrefix,
    kind::{Build, Identity, IdentityKind, Judgement},
    profile::{Place, Profile},
    request_view::PresentedCredentials,
    section::Section,
};

/// What a trusted proxy says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForwardedSettings {
    /// The header that holds the subject's id.
    subject: HeaderName,
    /// What the subject's id begins with, so that it differs from equal ids of another identity.
    #[serde(default)]
    subject_prefix: SubjectPrefix,
    /// Headers that hold claims, by the claim's name. A value with commas is a list.
    #[serde(default)]
    claims: BTreeMap<String, HeaderName>,
    /// Whether a browser may send by itself what the proxy derives these headers from: then they are accepted from the
    /// gate's own pages and the allowed origins only.
    #[serde(default = "default_ambient")]
    ambient: bool,
}

/// The name of a header, which a proxy sets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
struct HeaderName(header::HeaderName);

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
        section.check_literal(&self.subject_prefix);
        // It is believed from trusted proxies only, so there must be some, and not everyone.
        let proxies = section.facts.server.map(|server| &server.trusted_proxies);
        if proxies.is_some_and(Vec::is_empty) {
            let message = "needs `trusted_proxies` in [server]: nobody else is believed";
            section.fault("", message);
        } else if let Some(network) =
            proxies.and_then(|all| all.iter().find(|network| network.is_too_wide()))
        {
            let message = format!(
                "any client can claim to be anyone, because `trusted_proxies` has {}; name the addresses of your \
                 proxies only",
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

/// Believes headers of trusted proxies, and of nobody else.
struct Forwarded {
    name: IdentityName,
    settings: Arc<ForwardedSettings>,
}

impl Identity for Forwarded {
    /// Takes what the proxy says. From anyone else it is as if nothing were said.
    fn judge<'a>(&'a self, case: &'a Case<'_>) -> Judgement<'a> {
        if !case.is_from_proxy() {
            return Presented::Nothing.into();
        }
        match self.read(case.presented()) {
            Ok(None) => Presented::Nothing.into(),
            Err(reason) => Denial::InvalidCredentials(reason).into(),
            // The browser may have sent by itself what the proxy knows the subject by.
            Ok(Some(subject)) => match case.check_origin() {
                Err(denial) if self.settings.ambient => denial.into(),
                _ => Presented::Subject(Arc::new(subject)).into(),
            },
        }
    }
}

impl Forwarded {
    fn read(&self, presented: &dyn PresentedCredentials) -> Result<Option<Subject>, String> {
        let subject = &self.settings.subject.0;
        // Without a subject nothing else of it matters.
        let Some(id) = only(presented, subject)? else {
            return Ok(None);
        };
        let mut values = Vec::new();
        for (claim, header) in &self.settings.claims {
            if let Some(value) = only(presented, &header.0)? {
                values.push((claim.clone(), listed(value)));
            }
        }
        if id.contains(',') {
            // Two values that a proxy has joined: one of them may be a client's.
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

/// The one value of a header; nothing where it is empty. A header that stands there twice, or beside a twin
/// that differs in `_` for `-`, may be a client's that slipped past the proxy.
fn only<'a>(
    presented: &'a dyn PresentedCredentials,
    name: &header::HeaderName,
) -> Result<Option<&'a str>, String> {
    let headers = presented.headers();
    let is_twin = |other: &header::HeaderName| {
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
