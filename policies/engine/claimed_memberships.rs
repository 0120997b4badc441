//! Memberships in a claim, in the formats that issuers use.

use std::borrow::Cow;

use serde_json::Value;

use crate::{ClaimPath, Claims, WorkspaceId};

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
