//! What is wrong between the identities of one `accept` or `exchange`: one that never judges, and equal subjects of two
//! issuers.

use policies::IdentityName;

use super::{
    issuer::{Issuers, SubjectPrefix},
    profile::{Place, Profile, Profiles, Takes},
};
use crate::config::document::Reader;

/// The identities that the chain of one route accepts.
#[derive(Default)]
pub(crate) struct ChainIdentities<'a> {
    /// The lists: each with its path in the config, for example `policies.signed-in.accept`.
    pub(crate) accepts: Vec<(String, &'a [IdentityName])>,
    /// Whether an app is asked about the user by a URL that has the user's id in its path.
    pub(crate) asks_by_url: bool,
}

impl Profiles<'_> {
    /// Checks the list `accept` of a policy, which is at `path`.
    pub(crate) fn check_accept(&self, reader: &mut Reader, path: &str, accept: &[IdentityName]) {
        if accept.is_empty() {
            reader.fault(path, "must name at least one identity");
            return;
        }
        reader.names(path, accept, |name| self.unknown(name));
        self.check_shadowing(reader, path, accept);
    }

    /// Notes each identity that an earlier one of the same list keeps from ever judging what is in one of its places.
    pub(super) fn check_shadowing(&self, reader: &mut Reader, path: &str, accept: &[IdentityName]) {
        for (index, later) in accept.iter().enumerate() {
            let shadow = accept[..index].iter().find_map(|earlier| {
                // A name that is listed twice is a fault already.
                if earlier == later {
                    return None;
                }
                let (place, remedy) = shadow(self.find(earlier)?, self.find(later)?)?;
                Some(format!(
                    "`{later}` would never judge {place}, because `{earlier}`, listed before it, takes all that \
                     `{later}` would take; {remedy}"
                ))
            });
            if let Some(message) = shadow {
                reader.fault(format!("{path}[{index}]"), message);
            }
        }
    }

    /// Warns of what is rarely meant between the identities of a chain.
    pub(crate) fn check_chains(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
        self.equal_subjects(reader, chains);
        self.ids_that_fill_no_path(reader, chains);
    }

    /// Warns of chains in which users of different issuers are the same user if their ids are equal.
    fn equal_subjects(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
        let mut warned = Vec::new();
        for chain in chains {
            let accepts = chain.accepts.iter();
            let accepted: Vec<_> = accepts
                .flat_map(|(path, accept)| {
                    let accept = accept.iter().enumerate();
                    accept.map(move |(index, name)| (format!("{path}[{index}]"), name))
                })
                .filter_map(|(path, name)| Some((path, name, issuers(self.find(name)?)?)))
                .collect();
            for (index, (path, own, (issuers, prefix))) in accepted.iter().enumerate() {
                // A policy may be in several chains.
                if warned.contains(path) {
                    continue;
                }
                let mut others = accepted[..index].iter();
                let confused = others.find(|(_, _, (other_issuers, other))| {
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

    /// Warns of chains in which no app can be asked about a user's membership, because the user's id is no segment of a
    /// path.
    fn ids_that_fill_no_path(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
        let mut warned = Vec::new();
        let asking = chains.iter().filter(|chain| chain.asks_by_url);
        for name in asking.flat_map(|chain| chain.accepts.iter().flat_map(|(_, accept)| *accept)) {
            let prefix = self.find(name).and_then(|profile| profile.subject_prefix);
            if prefix.is_none_or(SubjectPrefix::fits_path) || warned.contains(&name) {
                continue;
            }
            warned.push(name);
            reader.warning(
                format!("identities.{name}.subject_prefix"),
                "a membership `url` cannot be asked about these users, who are denied: the prefix has characters that \
                 cannot stand in a segment of a path",
            );
        }
    }
}

/// Where `earlier` keeps `later` from ever judging, and what to do about it.
fn shadow<'a>(earlier: &Profile<'_>, later: &Profile<'a>) -> Option<(Place<'a>, &'static str)> {
    let mut places = later.places.iter().copied();
    let shared = places.find(|place| earlier.places.contains(place));
    let place = shared.filter(|_| earlier.takes.covers(&later.takes))?;
    let remedy = if !later.takes.covers(&earlier.takes) {
        "list them the other way round"
    } else if matches!(later.takes, Takes::Jwts { .. }) {
        "let them differ in `issuer`, `algorithms` or `from`"
    } else {
        "let them read different places"
    };
    Some((place, remedy))
}

/// The issuers of an identity that names some, and the prefix of its subjects, unless that keeps issuers apart.
fn issuers<'a>(profile: &Profile<'a>) -> Option<(&'a Issuers, Option<&'a SubjectPrefix>)> {
    let prefix = profile.subject_prefix;
    let are_apart = prefix.is_some_and(SubjectPrefix::takes_issuer);
    let issuers = profile.issuers.filter(|_| !are_apart)?;
    Some((issuers, prefix))
}
