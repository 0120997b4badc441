//! Paths of claims.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

/// Claims by name, as in RFC 7519.
pub type Claims = serde_json::Map<String, serde_json::Value>;

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
