//! What is wrong between the identities of one `accept`: one that never judges, and equal subjects of two issuers.

use std::fmt;

use actix_web::http::header::{AUTHORIZATION, HeaderName};
use jsonwebtoken::Algorithm;
use policies::{IdentityName, Requirements};

use super::{
    IdentitySettings,
    check::Identities,
    document::Reader,
    identities::{
        TokenSource,
        issuer::{Issuers, SubjectPrefix},
    },
    policy::Policies,
    routes::RouteSettings,
    session::CookieName,
};

/// Where an identity finds its credentials.
#[derive(PartialEq, Eq)]
enum Place<'a> {
    Bearer,
    Header(&'a HeaderName),
    Cookie(&'a CookieName),
    /// A header that only trusted proxies can set.
    Forwarded(&'a HeaderName),
    /// The gate's own session cookie.
    Session,
}

impl<'a> From<&'a TokenSource> for Place<'a> {
    fn from(source: &'a TokenSource) -> Self {
        match source {
            TokenSource::Bearer => Self::Bearer,
            TokenSource::Header(name) if *name == AUTHORIZATION => Self::Bearer,
            TokenSource::Header(name) => Self::Header(name),
            TokenSource::Cookie(name) => Self::Cookie(name),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("the bearer token"),
            Self::Header(name) | Self::Forwarded(name) => write!(f, "the header `{name}`"),
            Self::Cookie(name) => write!(f, "the cookie `{}`", name.as_str()),
            Self::Session => f.write_str("the session cookie"),
        }
    }
}

/// Which credentials address an identity, where it finds them.
enum Takes<'a> {
    All,
    /// Those that address no `jwt` identity.
    Others,
    Jwts {
        algorithms: &'a [Algorithm],
        issuers: Option<&'a Issuers>,
    },
}

impl Takes<'_> {
    /// Whether it takes everything that `other` takes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (Self::Others, Self::Others) => true,
            (
                Self::Jwts {
                    algorithms,
                    issuers,
                },
                Self::Jwts {
                    algorithms: other_algorithms,
                    issuers: other_issuers,
                },
            ) => {
                let has_issuers = match (issuers, other_issuers) {
                    (None, _) => true,
                    (Some(issuers), Some(others)) => issuers.cover(others),
                    (Some(_), None) => false,
                };
                let mut others = other_algorithms.iter();
                has_issuers && others.all(|algorithm| algorithms.contains(algorithm))
            }
            (Self::Others | Self::Jwts { .. }, _) => false,
        }
    }
}

/// Where an identity finds credentials, and which of them address it.
fn addressed_by(settings: &IdentitySettings) -> (Vec<Place<'_>>, Takes<'_>) {
    match settings {
        IdentitySettings::Jwt(jwt) => (
            places(&jwt.from),
            Takes::Jwts {
                algorithms: &jwt.algorithms,
                issuers: jwt.issuer.as_ref(),
            },
        ),
        IdentitySettings::Introspection(settings) => (places(&settings.from), Takes::Others),
        IdentitySettings::Remote(settings) => (places(&settings.forward), Takes::All),
        IdentitySettings::Forwarded(settings) => {
            (vec![Place::Forwarded(&settings.subject.0)], Takes::All)
        }
        IdentitySettings::Session(_) => (vec![Place::Session], Takes::All),
    }
}

fn places(sources: &[TokenSource]) -> Vec<Place<'_>> {
    sources.iter().map(Place::from).collect()
}

/// Notes each identity that an earlier one of the same `accept` keeps from ever judging what is in one of its places.
pub(super) fn shadowing(
    reader: &mut Reader,
    key: &str,
    accept: &[IdentityName],
    identities: &Identities,
) {
    for (index, later) in accept.iter().enumerate() {
        let shadow = accept[..index].iter().find_map(|earlier| {
            // A name that is listed twice is a fault already.
            if earlier == later {
                return None;
            }
            let settings = find(identities, later)?;
            let (place, remedy) = shadow(find(identities, earlier)?, settings)?;
                        Some(format!(
                "`{later}` would never judge {place}, because `{earlier}`, listed before it, takes all that `{later}` \
                 would take; {remedy}"
            ))
        });
        if let Some(message) = shadow {
            reader.fault(format!("{key}[{index}]"), message);
        }
    }
}

/// Where `earlier` keeps `later` from ever judging, and what to do about it.
fn shadow<'a>(
    earlier: &IdentitySettings,
    later: &'a IdentitySettings,
) -> Option<(Place<'a>, &'static str)> {
    let (earlier_places, takes_earlier) = addressed_by(earlier);
    let (places, takes) = addressed_by(later);
    let shared = places
        .into_iter()
        .find(|place| earlier_places.contains(place));
    let place = shared.filter(|_| takes_earlier.covers(&takes))?;
    let remedy = if !takes.covers(&takes_earlier) {
        "list them the other way round"
    } else if matches!(takes, Takes::Jwts { .. }) {
        "let them differ in `issuer`, `algorithms` or `from`"
    } else {
        "let them read different places"
    };
    Some((place, remedy))
}

/// Warns of chains in which users of different issuers are the same user if their ids are equal.
pub(super) fn equal_subjects(
    reader: &mut Reader,
    routes: &[RouteSettings],
    policies: &Policies,
    identities: &Identities,
) {
    let mut warned = Vec::new();
    for route in routes {
        let chain = route.policies.iter();
        let accepted: Vec<_> = chain
            .filter_map(|name| policies.iter().find(|policy| policy.name == *name))
            .filter_map(|policy| Some((policy, &policy.entry.as_ref()?.requirements)))
            .flat_map(|(policy, requirements)| {
                let accept = requirements.accept.iter().enumerate();
                accept.map(move |(index, name)| {
                    (format!("policies.{}.accept[{index}]", policy.name), name)
                })
            })
            .filter_map(|(path, name)| {
                let settings = find(identities, name)?;
                Some((path, name, issuers(settings)?))
            })
            .collect();
        for (index, (path, own, (issuers, prefix))) in accepted.iter().enumerate() {
            // A policy may be in several chains.
            if warned.contains(path) {
                continue;
            }
            let confused = accepted[..index]
                .iter()
                .find(|(_, _, (other_issuers, other))| {
                    let are_same = issuers.cover(other_issuers) && other_issuers.cover(issuers);
                    prefix == other && !are_same
                });
            let message = if let Some((_, other, _)) = confused {
                format!(
                    "`{other}` and `{own}` are of different issuers, and their users with equal ids are one user; a \
                     `subject_prefix` keeps them apart"
                )
            } else if issuers.iter().nth(1).is_some() || issuers.take_tid() {
                format!(
                    "`{own}` is of several issuers, and their users with equal ids are one user; `subject_prefix = \
                     \"{{iss}}:\"` keeps them apart"
                )
            } else {
                continue;
            };
            warned.push(path.clone());
            reader.warning(path, message);
        }
    }
}

/// Warns of chains in which no app can be asked about a user's membership, because the user's id is no segment of a path.
pub(super) fn ids_that_fill_no_path(
    reader: &mut Reader,
    routes: &[RouteSettings],
    policies: &Policies,
    identities: &Identities,
) {
    let mut warned = Vec::new();
    for route in routes {
        let chain = route.policies.iter().filter_map(|name| {
            let mut all = policies.iter();
            let policy = all.find(|policy| policy.name == *name)?;
            policy.entry.as_ref().map(|policy| &policy.requirements)
        });
        let asks = |requirements: &Requirements| {
            let service = requirements.service.as_ref();
            service.is_some_and(|service| service.names_user_in_path)
        };
        if !chain.clone().any(asks) {
            continue;
        }
        let accepted = chain.map(|requirements| &requirements.accept);
        for name in accepted.flatten() {
            let prefix = find(identities, name).and_then(subject_prefix);
            if prefix.is_none_or(SubjectPrefix::fits_path) {
                continue;
            }
            if !warned.contains(&name) {
                warned.push(name);
                reader.warning(format!("identities.{name}.subject_prefix"),
                    "a membership `url` cannot be asked about these users, who are denied: the prefix has characters \
                     that cannot stand in a segment of a path",
                );
            }
        }
    }
}

fn subject_prefix(settings: &IdentitySettings) -> Option<&SubjectPrefix> {
    match settings {
        IdentitySettings::Jwt(settings) => Some(&settings.subject_prefix),
        IdentitySettings::Introspection(settings) => Some(&settings.subject_prefix),
        IdentitySettings::Forwarded(settings) => Some(&settings.subject_prefix),
        IdentitySettings::Remote(settings) => Some(&settings.subject_prefix),
        IdentitySettings::Session(_) => None,
    }
}

/// The issuers of an identity that names some, and the prefix of its subjects, unless that keeps issuers apart.
fn issuers(settings: &IdentitySettings) -> Option<(&Issuers, &SubjectPrefix)> {
    let (issuers, prefix) = match settings {
        IdentitySettings::Jwt(jwt) => (&jwt.issuer, &jwt.subject_prefix),
        IdentitySettings::Introspection(settings) => (&settings.issuer, &settings.subject_prefix),
        IdentitySettings::Session(_)
        | IdentitySettings::Forwarded(_)
        | IdentitySettings::Remote(_) => return None,
    };
    let issuers = issuers.as_ref().filter(|_| !prefix.takes_issuer())?;
    Some((issuers, prefix))
}

fn find<'a>(identities: &'a Identities, name: &IdentityName) -> Option<&'a IdentitySettings> {
    let identity = identities.iter().find(|identity| identity.name == *name)?;
    identity.entry.as_ref()
}
