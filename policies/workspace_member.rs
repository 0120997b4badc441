//! `workspace_member`: the subject belongs to the workspace, in a role that may upload.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Deciding, Decision, Denial, Evaluating, Membership, Policy, Subject, UploadRequest, Verdict,
    WorkspaceId,
};

/// Settings of `kind = "workspace_member"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceMemberSettings {
    /// The claim that lists the subject's workspaces: `["ws_1"]`, `[{"id":"ws_1","role":"editor"}]` or
    /// `{"ws_1":"editor"}`.
    pub claim: String,
    /// The roles that may upload; left out: any member.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
}

/// Checks membership by a claim.
pub struct WorkspaceMember {
    claim: String,
    roles: Option<Vec<String>>,
}

impl WorkspaceMember {
    /// Builds the policy.
    #[must_use]
    pub fn new(settings: &WorkspaceMemberSettings) -> Self {
        Self {
            claim: settings.claim.clone(),
            roles: settings.roles.clone(),
        }
    }

    fn check(
        &self,
        request: &UploadRequest,
        subject: Option<&Subject>,
    ) -> Result<Membership, Denial> {
        let claim = subject.and_then(|subject| subject.claims.get(&self.claim));
        let workspace = match &request.workspace {
            Some(workspace) => workspace.clone(),
            None => only_workspace(claim).ok_or(Denial::WorkspaceRequired)?,
        };
        let mut member = false;
        for (id, role) in memberships(claim) {
            if id != workspace.as_str() {
                continue;
            }
            member = true;
            let suffices = match &self.roles {
                None => true,
                Some(roles) => role.is_some_and(|role| roles.iter().any(|r| r == role)),
            };
            if suffices {
                let role = role.map(str::to_owned);
                return Ok(Membership { workspace, role });
            }
        }
        Err(Denial::WorkspaceForbidden(if member {
            format!("the subject's role in workspace `{workspace}` is not enough")
        } else {
            format!("the subject is no member of workspace `{workspace}`")
        }))
    }
}

impl Policy for WorkspaceMember {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(async move {
            let Evaluating { request, facts, .. } = evaluating;
            Ok(Decision::from(
                match self.check(request, facts.subject.as_deref()) {
                    Ok(membership) => {
                        facts.membership = Some(membership);
                        Verdict::Allow
                    }
                    Err(denial) => Verdict::Deny(denial),
                },
            ))
        })
    }
}

/// The workspaces of a claim in any of its three shapes, each with the role if it tells one. Entries of
/// another shape are no memberships.
fn memberships(claim: Option<&Value>) -> impl Iterator<Item = (&str, Option<&str>)> {
    let list = claim.and_then(Value::as_array).into_iter().flatten();
    let map = claim.and_then(Value::as_object).into_iter().flatten();
    // A list of one, as a proxy writes it in a header.
    let only = claim.and_then(Value::as_str).map(|id| (id, None));
    list.filter_map(|entry| match entry {
        Value::String(id) => Some((id.as_str(), None)),
        Value::Object(entry) => Some((
            entry.get("id")?.as_str()?,
            entry.get("role").and_then(Value::as_str),
        )),
        _ => None,
    })
    .chain(map.filter_map(|(id, role)| match role {
        Value::String(role) => Some((id.as_str(), Some(role.as_str()))),
        Value::Null => Some((id.as_str(), None)),
        _ => None,
    }))
    .chain(only)
}

fn only_workspace(claim: Option<&Value>) -> Option<WorkspaceId> {
    let mut ids = memberships(claim).map(|(id, _)| id);
    let first = ids.next()?;
    ids.all(|id| id == first)
        .then(|| WorkspaceId::parse(first).ok())
        .flatten()
}
