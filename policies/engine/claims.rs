//! Claims: how the config names one, and the memberships in one, in the formats that issuers use.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{WorkspaceId, id_text};

/// Claims by name, as in RFC 7519.
pub type Claims = Map<String, Value>;

/// A claim by its top-level name, taken literally, or by a JSON Pointer (RFC 6901), which starts with `/`.
///
/// `https://app.example.com/role` is a name. `/o/id` is the member `id` of the claim `o`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ClaimPath {
    /// As the config writes it.
    text: String,
    name: String,
    /// The members and entries on the way from the claim to the value. It is empty for the claim itself.
    rest: Vec<String>,
}

impl ClaimPath {
    /// Parses a name or a pointer.
    ///
    /// # Errors
    ///
    /// If the text is neither. The message says why.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, rest) = match text.strip_prefix('/') {
            None => (text.to_owned(), Vec::new()),
            Some(pointer) => {
                let mut escapes = pointer.split('~').skip(1);
                if escapes.any(|after| !after.starts_with(['0', '1'])) {
                    return Err("must write `~` as `~0`, because the text is a JSON Pointer");
                }
                let unescape = |key: &str| key.replace("~1", "/").replace("~0", "~");
                let mut keys = pointer.split('/').map(unescape);
                (keys.next().unwrap_or_default(), keys.collect())
            }
        };
        if name.is_empty() {
            return Err("must name a claim");
        }
        Ok(Self {
            text: text.to_owned(),
            name,
            rest,
        })
    }

    /// The claim of this name, which is taken literally even if it starts with `/`.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            text: name.to_owned(),
            name: name.to_owned(),
            rest: Vec::new(),
        }
    }

    /// Whether both lead to the same value. `id` and `/id` do.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.keys().eq(other.keys())
    }

    /// Returns the names of the claim and of the members on the way to the value.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let rest = self.rest.iter().map(String::as_str);
        std::iter::once(self.name.as_str()).chain(rest)
    }

    /// Whether this is the whole claim of this name.
    #[must_use]
    pub fn is_claim(&self, name: &str) -> bool {
        self.name == name && self.rest.is_empty()
    }

    /// Returns the value of the claim, if it exists.
    #[must_use]
    pub fn get<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        let claim = claims.get(&self.name)?;
        self.rest.iter().try_fold(claim, |value, key| match value {
            Value::Object(members) => members.get(key),
            Value::Array(entries) => entries.get(index(key)?),
            _ => None,
        })
    }

    /// Says that the claim does not exist, for the log.
    #[must_use]
    pub fn missing(&self) -> String {
        format!("the token has no `{self}`")
    }
}

/// An index of a list as RFC 6901 writes it: without a sign and without leading zeros.
fn index(key: &str) -> Option<usize> {
    let is_number = key.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = key.len() > 1 && key.starts_with('0');
    (is_number && !has_leading_zero).then(|| key.parse().ok())?
}

impl TryFrom<String> for ClaimPath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// Schemas show defaults.
impl Serialize for ClaimPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
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
            "title": "a claim",
            "examples": ["workspaces"],
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
    pub(crate) id_key: ClaimPath,
    /// The member of an object that is the role, or a list of roles.
    pub(crate) role_key: ClaimPath,
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

    /// Says what the claims lack if they list no workspace, for the log.
    pub(crate) fn why_no_workspace(&self, claims: &Claims) -> Option<String> {
        let claim = &self.claim;
        if claim.get(claims).is_none() {
            Some(claim.missing())
        } else if self.all(claims).next().is_none() {
            Some(format!("the token's `{claim}` lists no workspace"))
        } else {
            None
        }
    }

    /// Says what the claims lack if a member has no role, for the log.
    pub(crate) fn why_no_role(&self, claims: &Claims) -> String {
        let Self {
            claim, role_key, ..
        } = self;
        match &self.role_claim {
            None => format!("the token's `{claim}` has no `{role_key}` for it"),
            Some(role) if self.only(claims).is_none() => {
                format!(
                    "the token's `{claim}` lists several workspaces, and `{role}` is the role in one"
                )
            }
            Some(role) if role.get(claims).is_none() => role.missing(),
            Some(role) => format!("the token's `{role}` is not a role"),
        }
    }

    fn only<'a>(&'a self, claims: &'a Claims) -> Option<Cow<'a, str>> {
        let mut ids = self.all(claims).map(|claimed| claimed.workspace);
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)
    }

    /// Iterates over the memberships. Entries of an unknown format are ignored.
    fn all<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = Claimed<'a>> {
        let claim = self.claim.get(claims);
        // An object with an id describes one workspace. Any other is a map of ids to roles or to objects.
        let map = claim.and_then(Value::as_object);
        let map = map.filter(|object| !object.contains_key(&self.id_key.name));
        let list = claim.and_then(Value::as_array);
        let one = claim.filter(|_| map.is_none() && list.is_none());
        let entries = list.into_iter().flatten().chain(one);
        let pairs = map.into_iter().flatten();
        entries
            .filter_map(|entry| self.entry(entry))
            .chain(pairs.filter_map(|(key, value)| self.pair(key, value)))
    }

    /// An id with the role, or a key with an object. An object with an id names its workspace itself, as in Keycloak's
    /// `{"acme":{"id":"42"}}`.
    fn pair<'a>(&self, key: &'a str, value: &'a Value) -> Option<Claimed<'a>> {
        match value {
            Value::Object(object) => Some(Claimed {
                workspace: match self.id_key.get(object) {
                    Some(id) => id_text(id)?,
                    None => Cow::Borrowed(key),
                },
                role: self.role_key.get(object),
            }),
            Value::String(_) | Value::Array(_) | Value::Null => Some(Claimed {
                workspace: Cow::Borrowed(key),
                role: Some(value),
            }),
            Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// An id, or an object with one.
    fn entry<'a>(&self, entry: &'a Value) -> Option<Claimed<'a>> {
        Some(match entry {
            Value::Object(object) => Claimed {
                workspace: id_text(self.id_key.get(object)?)?,
                role: self.role_key.get(object),
            },
            entry => Claimed {
                workspace: id_text(entry)?,
                role: None,
            },
        })
    }
}

fn each_role(role: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = role.and_then(Value::as_str);
    let list = role.and_then(Value::as_array).into_iter().flatten();
    one.into_iter().chain(list.filter_map(Value::as_str))
}
