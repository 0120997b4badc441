//! Claims: how the config names one, and the memberships in one, in the formats that issuers use.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::WorkspaceId;

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

/// The memberships in a claim.
pub(crate) struct ClaimedMemberships {
    /// The claim that lists the workspaces.
    pub(crate) claim: ClaimPath,
    /// The member of an object that is the workspace's id.
    pub(crate) id_key: String,
    /// The member of an object that is the role, or a list of roles.
    pub(crate) role_key: String,
    /// The claim with the role in the only workspace, if roles are not next to the ids.
    pub(crate) role_claim: Option<ClaimPath>,
}

struct Claimed<'a> {
    workspace: Cow<'a, str>,
    /// A role, or a list of roles.
    role: Option<&'a Value>,
}

impl ClaimedMemberships {
    /// Returns the user's roles in `workspace`, or `None` if the user is not a member.
    pub(crate) fn roles_in<'a>(
        &'a self,
        claims: &'a Claims,
        workspace: &WorkspaceId,
    ) -> Option<Vec<&'a str>> {
        let mut is_member = false;
        let mut roles = Vec::new();
        for claimed in self.all(claims) {
            if claimed.workspace == workspace.as_str() {
                is_member = true;
                roles.extend(each_role(claimed.role));
            }
        }
        if let Some(role_claim) = &self.role_claim {
            // With several workspaces, it is unknown which of them the role belongs to.
            let is_only = self.only(claims).is_some();
            let role = role_claim.get(claims).filter(|_| is_only);
            roles = each_role(role).collect();
        }
        is_member.then_some(roles)
    }

    /// Returns the user's workspace, if there is exactly one.
    pub(crate) fn only_workspace(&self, claims: &Claims) -> Option<WorkspaceId> {
        WorkspaceId::parse(&self.only(claims)?).ok()
    }

    fn only<'a>(&'a self, claims: &'a Claims) -> Option<Cow<'a, str>> {
        let mut ids = self.all(claims).map(|claimed| claimed.workspace);
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)
    }

    /// Iterates over the memberships. Entries of an unknown format are ignored.
    fn all<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = Claimed<'a>> {
        let claim = self.claim.get(claims);
        // An object with an id describes one workspace. Any other is a map of ids to roles.
        let map = claim.and_then(Value::as_object);
        let map = map.filter(|object| !object.contains_key(&self.id_key));
        let list = claim.and_then(Value::as_array);
        let one = claim.filter(|_| map.is_none() && list.is_none());
        let entries = list.into_iter().flatten().chain(one);
        let pairs = map.into_iter().flatten();
        entries
            .filter_map(|entry| self.entry(entry))
            .chain(pairs.filter_map(|(id, role)| {
                let is_role = matches!(role, Value::String(_) | Value::Array(_) | Value::Null);
                is_role.then_some(Claimed {
                    workspace: Cow::Borrowed(id.as_str()),
                    role: Some(role),
                })
            }))
    }

    /// An id, or an object with one.
    fn entry<'a>(&self, entry: &'a Value) -> Option<Claimed<'a>> {
        Some(match entry {
            Value::Object(object) => Claimed {
                workspace: id(object.get(&self.id_key)?)?,
                role: object.get(&self.role_key),
            },
            entry => Claimed {
                workspace: id(entry)?,
                role: None,
            },
        })
    }
}

/// Reads an id: a string, or an integer, which is converted to its decimal digits.
fn id(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(id) => Some(Cow::Borrowed(id)),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(Cow::Owned(id.to_string())),
        _ => None,
    }
}

fn each_role(role: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = role.and_then(Value::as_str);
    let list = role.and_then(Value::as_array).into_iter().flatten();
    one.into_iter().chain(list.filter_map(Value::as_str))
}
