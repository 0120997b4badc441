//! Claims: how the config names one, and which parts of them are read.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Claims by name, as in RFC 7519.
pub type Claims = Map<String, Value>;

/// A claim by its top-level name, taken literally, or by a JSON Pointer (RFC 6901), which starts with `/`.
///
/// `https://app.example.com/role` is a name. `/o/id` is the member `id` of the claim `o`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimPath {
    /// As the config writes it.
    text: String,
    name: String,
    /// The rest of the pointer. It is empty for the claim itself.
    rest: String,
}

impl ClaimPath {
    /// Parses a name or a pointer.
    ///
    /// # Errors
    ///
    /// If the text is neither. The message says why.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, rest) = match text.strip_prefix('/') {
            None => (text.to_owned(), ""),
            Some(pointer) => {
                let end = pointer.find('/').unwrap_or(pointer.len());
                let (name, rest) = pointer.split_at(end);
                if pointer
                    .split('~')
                    .skip(1)
                    .any(|after| !after.starts_with(['0', '1']))
                {
                    return Err("must write `~` as `~0`, because the text is a JSON Pointer");
                }
                (name.replace("~1", "/").replace("~0", "~"), rest)
            }
        };
        if name.is_empty() {
            return Err("must name a claim");
        }
        Ok(Self {
            text: text.to_owned(),
            rest: rest.to_owned(),
            name,
        })
    }

    /// Returns the names of the claim and of the members on the way to the value.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        let rest = self.rest.split('/').skip(1);
        let rest = rest.map(|key| key.replace("~1", "/").replace("~0", "~"));
        std::iter::once(self.name.clone()).chain(rest)
    }

    /// Returns the value of the claim, if it exists.
    #[must_use]
    pub fn get<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        claims.get(&self.name)?.pointer(&self.rest)
    }
}

impl TryFrom<String> for ClaimPath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClaimPath").field(&self.text).finish()
    }
}

impl JsonSchema for ClaimPath {
    fn schema_name() -> Cow<'static, str> {
        "ClaimPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A claim by its top-level name, or by a JSON Pointer that starts with `/`",
            "minLength": 1,
        })
    }
}

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
