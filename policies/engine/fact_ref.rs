//! Facts, borrowed from a request, as expressions and remote policies read them.

use std::net::IpAddr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{Claims, Clock};

/// A fact, borrowed from the request.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum FactRef<'a> {
    Flag(bool),
    Text(&'a str),
    Size(u64),
    Address(IpAddr),
    Time(#[serde(serialize_with = "now")] &'a dyn Clock),
    /// All claims, or an object in a claim. It may have any field. `None` without a user.
    Claims(Option<&'a Claims>),
    /// Any other value in a claim.
    Json(&'a Value),
    Group(Group<'a>),
}

#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    /// Whether the request has the group.
    pub(crate) is_known: bool,
    /// Every fact of the group, with its value in this request.
    pub(crate) all: &'a [(&'static str, Option<FactRef<'a>>)],
}

impl<'a> Group<'a> {
    /// The fact of this name, if the name exists.
    pub(crate) fn named(self, name: &str) -> Option<(&'static str, Option<FactRef<'a>>)> {
        self.all.iter().find(|(other, _)| *other == name).copied()
    }

    /// The facts that the request has.
    pub(crate) fn known(self) -> impl Iterator<Item = (&'static str, FactRef<'a>)> {
        let facts = self.all.iter();
        facts.filter_map(|(name, fact)| Some((*name, fact.filter(FactRef::is_known)?)))
    }
}

impl FactRef<'_> {
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Group(group) => group.is_known,
            Self::Claims(claims) => claims.is_some(),
            _ => true,
        }
    }
}

impl<'a> From<&'a Value> for FactRef<'a> {
    fn from(claim: &'a Value) -> Self {
        match claim {
            Value::String(text) => Self::Text(text),
            Value::Object(members) => Self::Claims(Some(members)),
            other => Self::Json(other),
        }
    }
}

fn now<S: Serializer>(clock: &&dyn Clock, serializer: S) -> Result<S::Ok, S::Error> {
    clock.now().serialize(serializer)
}

impl Serialize for Group<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.known())
    }
}
