//! Where a route reads its credential, for the page and for the curl command of the sandbox.

use serde::Serialize;

use crate::{
    identities::Place,
    server::settings::{RouteSettings, Settings},
};

/// Where the first identity that a route accepts reads its credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "in", content = "name")]
pub(crate) enum CredentialPlace {
    Bearer,
    Header(String),
    Cookie(String),
}

/// `None` if the route accepts anyone.
pub(crate) fn credential(settings: &Settings, route: &RouteSettings) -> Option<CredentialPlace> {
    let policies = route.policies.iter();
    let mut policies = policies.filter_map(|name| settings.policy(name));
    let accept = policies.find_map(|policy| policy.requirements.accept.first())?;
    let mut identities = settings.identities.iter();
    let (_, identity) = identities.find(|(name, _)| name == accept)?;
    Some(match identity.profile().places.first() {
        Some(Place::Header(name) | Place::Forwarded(name)) => {
            CredentialPlace::Header(name.to_string())
        }
        Some(Place::Cookie(cookie)) => CredentialPlace::Cookie(cookie.name().to_string()),
        Some(Place::Session) => {
            let (session, _) = settings.session.as_ref()?;
            CredentialPlace::Cookie(session.cookie.name.as_str().to_owned())
        }
        Some(Place::Bearer) | None => CredentialPlace::Bearer,
    })
}

impl CredentialPlace {
    /// The header of a request with the credential `value`.
    pub(crate) fn header(&self, value: &str) -> String {
        match self {
            Self::Bearer => format!("Authorization: Bearer {value}"),
            Self::Header(name) => format!("{name}: {value}"),
            Self::Cookie(name) => format!("Cookie: {name}={value}"),
        }
    }
}
