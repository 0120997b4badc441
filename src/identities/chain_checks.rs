//! Checks between the identities of one `accept` or `exchange`: an identity that is never used, and equal subject ids of
//! two issuers.

use policies::IdentityName;

use super::{
    issuer::{Issuers, SubjectPrefix},
    profile::{Accepts, Place, Profile, Profiles},
};
use crate::config::document::Reader;

/// The identities that the chain of one route accepts.
#[derive(Default)]
pub(crate) struct ChainIdentities<'a> {
    /// Each list with its path in the config, for example `policies.signed-in.accept`.
    pub(crate) accepts: Vec<(String, &'a [IdentityName])>,
    /// Whether a URL with the user's id in its path is called.
    pub(crate) asks_by_url: bool,
}

impl Profiles<'_> {
    /// Checks the list `accept` of a policy at `path`.
    pub(crate) fn check_accept(&self, reader: &mut Reader, path: &str, accept: &[IdentityName]) {
        if accept.is_empty() {
            reader.fault(path, "must name at least one identity");
            return;
        }
        reader.names(path, accept, |_| None);
        self.check_shadowing(reader, path, accept);
    }

    /// Reports each identity that never gets the credentials of one of its places, because an earlier one accepts them.
    pub(super) fn check_shadowing(&self, reader: &mut Reader, path: &str, accept: &[IdentityName]) {
        for (index, later) in accept.iter().enumerate() {
            let shadow = accept[..index].iter().find_map(|earlier| {
                // A duplicate name is already a fault.
                if earlier == later {
                    return None;
                }
                let (place, remedy) = shadow(self.find(earlier)?, self.find(later)?)?;
                Some(format!(
                    "`{later}` would never use {place}, because `{earlier}`, listed before it, accepts everything that \
                     `{later}` accepts; {remedy}"
                ))
            });
            if let Some(message) = shadow {
                reader.fault(format!("{path}[{index}]"), message);
            }
        }
    }

    /// Warns of combinations that are rarely intended.
    pub(crate) fn check_chains(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
        self.check_equal_subjects(reader, chains);
        self.check_ids_in_paths(reader, chains);
    }

    /// Warns of chains in which users of different issuers with equal ids are the same user.
    fn check_equal_subjects(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
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
                let same = others.find(|(_, _, (other_issuers, other))| {
                    let are_same = issuers.cover(other_issuers) && other_issuers.cover(issuers);
                    prefix == other && !are_same
                });
                let message = if let Some((_, other, _)) = same {
                    format!(
                        "`{other}` and `{own}` have different issuers, and users with equal ids are the same user; set a \
                         `subject_prefix` to distinguish them"
                    )
                } else if issuers.iter().nth(1).is_some() || issuers.have_tid() {
                    format!(
                        "`{own}` has several issuers, and users with equal ids are the same user; set `subject_prefix = \
                         \"{{iss}}:\"` to distinguish them"
                    )
                } else {
                    continue;
                };
                warned.push(path.clone());
                reader.warning(path, message);
            }
        }
    }

    /// Warns of chains that put a user's id in the path of a URL, although the id cannot be a segment of a path.
    fn check_ids_in_paths(&self, reader: &mut Reader, chains: &[ChainIdentities<'_>]) {
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
                "a membership `url` cannot contain the ids of these users, so they are denied: the prefix has characters \
                 that are not allowed in a segment of a path",
            );
        }
    }
}

/// Returns a place of `later` whose credentials `earlier` always accepts, and what to change.
fn shadow<'a>(earlier: &Profile<'_>, later: &Profile<'a>) -> Option<(Place<'a>, &'static str)> {
    let mut places = later.places.iter().copied();
    let shared = places.find(|place| earlier.places.iter().any(|own| own.covers(place)));
    let place = shared.filter(|_| earlier.accepts.covers(&later.accepts))?;
    let remedy = if !later.accepts.covers(&earlier.accepts) {
        "swap them"
    } else if matches!(later.accepts, Accepts::Jwts { .. }) {
        "write a different `issuer`, `algorithms` or `from`"
    } else {
        "write different places"
    };
    Some((place, remedy))
}

/// Returns the issuers of an identity, if it has any, and its subject prefix, unless that distinguishes the issuers.
fn issuers<'a>(profile: &Profile<'a>) -> Option<(&'a Issuers, Option<&'a SubjectPrefix>)> {
    let prefix = profile.subject_prefix;
    let has_issuer = prefix.is_some_and(SubjectPrefix::has_issuer);
    let issuers = profile.issuers.filter(|_| !has_issuer)?;
    Some((issuers, prefix))
}
