//! Which parts of the claims, or of another fact, are read.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{ClaimPath, Claims};

/// The parts of a fact that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The whole fact is read.
    All,
    /// Only these fields are read, with the parts of each. By default there are none.
    Fields(BTreeMap<String, Self>),
}

impl Default for Reads {
    fn default() -> Self {
        Self::Fields(BTreeMap::new())
    }
}

impl Reads {
    /// Returns the parts of all claims that a reader of the claim at `path` reads.
    #[must_use]
    pub fn claim(path: &ClaimPath) -> Self {
        let mut reads = Self::default();
        reads.add(&path.keys().collect::<Vec<_>>());
        reads
    }

    /// The parts of a field that are read, if any.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::All => Some(&Self::All),
            Self::Fields(fields) => fields.get(name),
        }
    }

    /// Adds the field at the end of `path`.
    pub(crate) fn add(&mut self, path: &[impl AsRef<str>]) {
        match (&mut *self, path) {
            (Self::All, _) => {}
            (_, []) => *self = Self::All,
            (Self::Fields(fields), [field, rest @ ..]) => {
                fields
                    .entry(field.as_ref().to_owned())
                    .or_default()
                    .add(rest);
            }
        }
    }

    /// Adds the parts that `other` reads.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Fields(fields), Self::Fields(others)) => {
                for (name, reads) in others {
                    fields.entry(name).or_default().merge(reads);
                }
            }
        }
    }

    /// Returns a copy of the parts of `claims` that are read.
    #[must_use]
    pub fn of(&self, claims: &Claims) -> Claims {
        let Self::Fields(fields) = self else {
            return claims.clone();
        };
        let read = fields.iter().filter_map(|(name, reads)| {
            let value = match (claims.get(name)?, reads) {
                (Value::Object(object), Self::Fields(_)) => reads.of(object).into(),
                // A reader that expects fields here finds the same value as in the whole claims.
                (value, _) => value.clone(),
            };
            Some((name.clone(), value))
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(names: &[&str]) -> Value {
        let Value::Object(claims) = json!({
            "plan": "pro",
            "a/b": 1,
            "realm_access": { "roles": ["editor"], "other": "x", "m~n": true },
            "list": [{ "role": "a" }, { "role": "b" }],
            "https://app.example.com/workspaces": ["ws_1"],
        }) else {
            unreachable!()
        };
        let mut reads = Reads::default();
        for name in names {
            let path = ClaimPath::parse(name).expect("it is a claim's name or a pointer");
            reads.merge(Reads::claim(&path));
        }
        reads.of(&claims).into()
    }

    #[test]
    fn a_claim_is_named_by_its_literal_name_or_by_a_pointer() {
        assert_eq!(kept(&[]), json!({}));
        assert_eq!(kept(&["plan", "absent"]), json!({ "plan": "pro" }));
        assert_eq!(kept(&["a/b"]), json!({ "a/b": 1 }));
        assert_eq!(kept(&["/a~1b"]), json!({ "a/b": 1 }));
        assert_eq!(
            kept(&["https://app.example.com/workspaces"]),
            json!({ "https://app.example.com/workspaces": ["ws_1"] })
        );
        assert_eq!(
            kept(&["/realm_access/roles"]),
            json!({ "realm_access": { "roles": ["editor"] } })
        );
        assert_eq!(
            kept(&["/realm_access/m~0n", "/realm_access/roles"]),
            json!({ "realm_access": { "roles": ["editor"], "m~n": true } })
        );
    }

    #[test]
    fn a_pointer_finds_the_same_value_in_the_kept_claims() {
        // An index points into the list as it was.
        let list = json!({ "list": [{ "role": "a" }, { "role": "b" }] });
        assert_eq!(kept(&["/list/1/role"]), list);
        assert_eq!(kept(&["/plan/field"]), json!({ "plan": "pro" }));
        assert_eq!(
            kept(&["/realm_access/absent/deeper"]),
            json!({ "realm_access": {} })
        );
    }

    #[test]
    fn reading_a_whole_claim_includes_its_parts() {
        let whole = kept(&["realm_access"]);
        assert_eq!(kept(&["/realm_access/roles", "realm_access"]), whole);
        assert_eq!(kept(&["realm_access", "/realm_access/roles"]), whole);
    }
}
