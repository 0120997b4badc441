//! `workspace_member`: the subject belongs to the workspace, in a role that may upload.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::LocalBoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_spanned::Spanned;

use crate::{
    Deciding, Decision, Denial, Evaluating, Fault, Finding, Interval, Membership, Policy,
    SecretSource, StoreName, Subject, SubjectId, UploadRequest, UrlTemplate, Verdict, WorkspaceId,
    settings::OnFailure,
};

/// Settings of `kind = "workspace_member"`: exactly one of `claim`, `members`, `url` and `query`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceMemberSettings {
    /// The claim that lists the subject's workspaces: `["ws_1"]`, `[{"id":"ws_1","role":"editor"}]` or
    /// `{"ws_1":"editor"}`; a text is a list of one.
    #[serde(default)]
    pub claim: Option<String>,
    /// The members themselves: `{ ws_1 = { user_1 = "owner" } }`.
    #[serde(default)]
    pub members: Option<Members>,
    /// Where the app is asked, by GET: `{workspace}` and `{user}` are filled in. It answers 200
    /// `{"role": "..."}`, or 404.
    #[serde(default)]
    pub url: Option<UrlTemplate>,
    /// The database that is asked: a name of `[stores]`; with `query`.
    #[serde(default)]
    #[schemars(with = "Option<StoreName>")]
    pub store: Option<Spanned<StoreName>>,
    /// The question in SQL: the user's id is `$1` and the workspace's `$2`. No row says that it is no member; the
    /// first column of a row is the role, or null.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub query: Option<Spanned<String>>,
    /// The bearer token that the app is asked with.
    #[serde(default)]
    #[schemars(with = "Option<SecretSource>")]
    pub token: Option<Spanned<SecretSource>>,
    /// Lets the token travel over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// The roles that may upload; left out: any member.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    /// How long an answer of the app or of the database is remembered; left out: not at all.
    #[serde(default)]
    pub cache: Option<Interval>,
    /// How long the app or the database may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
    /// What happens when nobody can be asked.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// Where memberships are looked up.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The app is asked.
    Url(&'a UrlTemplate),
    /// A database is asked.
    Query {
        /// Which one.
        store: &'a StoreName,
        /// In which words.
        query: &'a str,
    },
}

impl WorkspaceMemberSettings {
    /// Where memberships are looked up, if they are.
    #[must_use]
    pub fn lookup(&self) -> Option<Lookup<'_>> {
        if let Some(url) = &self.url {
            return Some(Lookup::Url(url));
        }
        let (store, query) = (self.store.as_ref()?, self.query.as_ref()?);
        Some(Lookup::Query {
            store: store.get_ref(),
            query: query.get_ref(),
        })
    }
}

/// The members of each workspace, with their roles.
pub type Members = BTreeMap<WorkspaceId, BTreeMap<SubjectId, String>>;

/// Where memberships are looked up: the port that the service implements.
pub trait Memberships: Send + Sync {
    /// Whether `user` is a member of `workspace`, and in which roles.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] when it cannot be found out.
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> LocalBoxFuture<'a, Result<Option<Member>, Fault>>;
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its roles: any number.
    pub roles: Vec<String>,
}

/// Where memberships come from.
enum Source {
    Claim(String),
    Members(Members),
    Lookup(Arc<dyn Memberships>),
}

/// Checks membership.
pub struct WorkspaceMember {
    source: Source,
    roles: Option<Vec<String>>,
}

impl WorkspaceMember {
    /// Builds the policy; `look_up` makes what asks, if the settings want it.
    pub fn new(
        settings: &WorkspaceMemberSettings,
        look_up: impl FnOnce(Lookup<'_>) -> Arc<dyn Memberships>,
    ) -> Self {
        let source = match (&settings.claim, &settings.members, settings.lookup()) {
            (None, Some(members), _) => Source::Members(members.clone()),
            (None, None, Some(lookup)) => Source::Lookup(look_up(lookup)),
            (claim, ..) => Source::Claim(claim.clone().unwrap_or_default()),
        };
        Self {
            source,
            roles: settings.roles.clone(),
        }
    }

    async fn check(
        &self,
        request: &UploadRequest,
        subject: Option<&Subject>,
    ) -> Result<Result<Membership, Denial>, Fault> {
        let only = || self.only_workspace(subject?);
        let Some(workspace) = request.workspace.clone().or_else(only) else {
            return Ok(Err(Denial::WorkspaceRequired));
        };
        let Some(subject) = subject else {
            let reason = format!("nobody is known to be a member of workspace `{workspace}`");
            return Ok(Err(Denial::WorkspaceForbidden(reason)));
        };
        Ok(match &self.source {
            Source::Claim(claim) => {
                let all = memberships(subject.claims.get(claim));
                let found = all.filter(|(id, _)| *id == workspace.as_str());
                self.judge(&workspace, found.map(|(_, role)| role))
            }
            Source::Members(members) => {
                let role = members.get(&workspace).and_then(|of| of.get(&subject.id));
                self.judge(&workspace, role.map(|role| Some(role.as_str())))
            }
            Source::Lookup(lookup) => {
                let member = lookup.find(&workspace, &subject.id).await?;
                let roles = member.as_ref().map(|member| {
                    let roles = member.roles.iter().map(|role| Some(role.as_str()));
                    let without = member.roles.is_empty().then_some(None);
                    roles.chain(without)
                });
                self.judge(&workspace, roles.into_iter().flatten())
            }
        })
    }

    /// Judges by the roles that the subject has in the workspace: none, if it is no member.
    fn judge<'r>(
        &self,
        workspace: &WorkspaceId,
        roles: impl IntoIterator<Item = Option<&'r str>>,
    ) -> Result<Membership, Denial> {
        let mut is_member = false;
        for role in roles {
            is_member = true;
            let suffices = match &self.roles {
                None => true,
                Some(roles) => role.is_some_and(|role| roles.iter().any(|r| r == role)),
            };
            if suffices {
                return Ok(Membership {
                    workspace: workspace.clone(),
                    role: role.map(str::to_owned),
                });
            }
        }
        Err(Denial::WorkspaceForbidden(if is_member {
            format!("the subject's role in workspace `{workspace}` is not enough")
        } else {
            format!("the subject is no member of workspace `{workspace}`")
        }))
    }

    /// The subject's only workspace, where the source tells all of them.
    fn only_workspace(&self, subject: &Subject) -> Option<WorkspaceId> {
        match &self.source {
            Source::Claim(claim) => only_workspace(subject.claims.get(claim)),
            Source::Members(members) => {
                let mut of_subject = members
                    .iter()
                    .filter(|(_, members)| members.contains_key(&subject.id));
                match (of_subject.next(), of_subject.next()) {
                    (Some((only, _)), None) => Some(only.clone()),
                    _ => None,
                }
            }
            Source::Lookup(_) => None,
        }
    }
}

impl Policy for WorkspaceMember {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(async move {
            let Evaluating { request, facts, .. } = evaluating;
            let checked = self.check(request, facts.subject.as_deref()).await?;
            Ok(match checked {
                Ok(membership) => {
                    Decision::from(Verdict::Allow).with_finding(Finding::Membership(membership))
                }
                Err(denial) => Decision::from(Verdict::Deny(denial)),
            })
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
