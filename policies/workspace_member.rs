//! `workspace_member`: the subject is a member of the workspace, in an allowed role.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, BuildContext, BuildError, ClaimPath, Decision, Denial, Fact, Fault, Findings,
    Interval, Membership, NewFact, Policy, PolicyInput, PolicyKind, Reads, Requirements,
    SecretSource, ServiceCall, StoreName, StoreUse, Subject, SubjectId, UploadRequest, UrlTemplate,
    Verdict, WorkspaceId,
    engine::{claimed_memberships::ClaimedMemberships, workspace_member_check},
};

const UNSEEN_ANSWERS: &str = "limits per workspace follow, and only the answers show whether they name the workspace: \
    without `workspace` in them, each spelling of an id that the app accepts has limits of its own";

/// The user is a member of the workspace, by exactly one of `claim`, `members`, `url` and `query`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceMemberSettings {
    /// The claim that lists the subject's workspaces: `"ws_1"`, `["ws_1", 7]`, `[{"id":"ws_1","role":"editor"}]`,
    /// `{"id":"ws_1","role":"editor"}` or `{"ws_1":"editor"}`. A role may be a list of roles.
    #[serde(default)]
    pub claim: Option<ClaimPath>,
    /// The member of an object that is the workspace's id; left out: `id`. Goes with `claim`.
    #[serde(default)]
    pub id_key: Option<String>,
    /// The member of an object that is the role; left out: `role`. Goes with `claim`.
    #[serde(default)]
    pub role_key: Option<String>,
    /// Another claim, which is the role in the subject's only workspace; a subject with several workspaces has no role
    /// then. Goes with `claim`.
    #[serde(default)]
    pub role_claim: Option<ClaimPath>,
    /// The members themselves: `{ ws_1 = { user_1 = "owner" } }`.
    #[serde(default)]
    pub members: Option<Members>,
    /// The URL at which the gate asks the app, by GET; `{workspace}` and `{user}` are filled in. The app answers 200
    /// with `{"role": ..., "workspace": ...}`, or 404. `role` is a text, a list of texts or null; `workspace` is the id that
    /// the app means, however the client spelled it.
    #[serde(default)]
    pub url: Option<UrlTemplate>,
    /// The database that is asked: a name of `[stores]`; with `query`.
    #[serde(default)]
    pub store: Option<StoreName>,
    /// The question in SQL: the user's id is `$1` and the workspace's `$2`. No row says that it is no member. The first
    /// column of a row is the role, or null. The second is the workspace's id, however the client spelled it.
    #[serde(default)]
    pub query: Option<String>,
    /// The bearer token that the app is asked with.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// Lets the token travel over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// The roles that are allowed; left out: any member.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    /// How long an answer of the app or of the database is remembered; left out: not at all.
    #[serde(default)]
    pub cache: Option<Interval>,
    /// How long the app or the database may take.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// The source of memberships outside of the gate.
#[derive(Clone, Copy, Debug)]
pub enum MembershipSource<'a> {
    /// The app's HTTP API.
    Url(&'a UrlTemplate),
    /// A database.
    Query {
        /// Which store.
        store: &'a StoreName,
        /// The SQL query.
        query: &'a str,
    },
}

impl WorkspaceMemberSettings {
    /// The member of an object that is the workspace's id.
    #[must_use]
    pub fn id_key(&self) -> &str {
        self.id_key.as_deref().unwrap_or("id")
    }

    /// The member of an object that is the role.
    #[must_use]
    pub fn role_key(&self) -> &str {
        self.role_key.as_deref().unwrap_or("role")
    }

    /// The external source of memberships, if any.
    #[must_use]
    pub fn lookup(&self) -> Option<MembershipSource<'_>> {
        if let Some(url) = self.url.as_ref() {
            return Some(MembershipSource::Url(url));
        }
        let (store, query) = (self.store.as_ref()?, self.query.as_ref()?);
        Some(MembershipSource::Query { store, query })
    }
}

impl PolicyKind for WorkspaceMemberSettings {
    const NAME: &'static str = "workspace_member";

    fn describe(&self) -> String {
        let source = match (&self.claim, &self.url, &self.store) {
            (Some(claim), ..) => format!("the claim {claim}"),
            (_, Some(_), _) => "the app".to_owned(),
            (_, _, Some(store)) => format!("the database {store}"),
            _ => "a table".to_owned(),
        };
        let roles = self.roles.as_ref();
        let roles = roles.map_or_else(String::new, |roles| format!(" as {}", roles.join(", ")));
        format!("a member of the workspace{roles}, by {source}")
    }

    fn requirements(&self) -> Requirements {
        let mut claims = Reads::default();
        for claim in [&self.claim, &self.role_claim].into_iter().flatten() {
            claims.merge(Reads::claim(claim));
        }
        let store = self.store.clone();
        let service = self.url.as_ref().map(|url| ServiceCall {
            token: self.token.clone(),
            is_private: url.is_private(),
            insecure_http: self.insecure_http,
            names_user_in_path: true,
        });
        Requirements {
            needs: vec![Fact::Subject],
            provides: Some(Fact::Membership),
            claims,
            store: store.map(|store| (store, StoreUse::Memberships)),
            if_counted_per_workspace: service.as_ref().map(|_| ("url", UNSEEN_ANSWERS)),
            service,
            query: self.query.clone(),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        workspace_member_check::check(self, findings);
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let source = match (&self.claim, self.lookup()) {
            (Some(claim), _) => Source::Claim(ClaimedMemberships {
                claim: claim.clone(),
                id_key: self.id_key().to_owned(),
                role_key: self.role_key().to_owned(),
                role_claim: self.role_claim.clone(),
            }),
            (None, Some(lookup)) => Source::Lookup(context.ports.memberships(lookup, self)?),
            (None, None) => Source::Members(self.members.clone().unwrap_or_default()),
        };
        Ok(Arc::new(WorkspaceMember {
            source,
            roles: self.roles.clone(),
        }))
    }
}

/// The members of each workspace, with their roles.
pub type Members = BTreeMap<WorkspaceId, BTreeMap<SubjectId, String>>;

/// A source of memberships: the port that the service implements.
pub trait Memberships: Send + Sync {
    /// Whether `user` is a member of `workspace`, and the source's spelling of the workspace and the roles.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`] if the source fails.
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        user: &'a SubjectId,
    ) -> BoxFuture<'a, MemberAnswer>;
}

/// A membership in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its roles. There may be none.
    pub roles: Vec<String>,
    /// The workspace as the source spells it, if the source tells. Sources compare more loosely than by bytes, so the
    /// client's text may be one of many spellings of an id.
    pub workspace: Option<WorkspaceId>,
}

/// A source's answer for a subject and a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAnswer {
    /// The subject is a member.
    Member(Member),
    /// The subject is not a member.
    NotAMember,
    /// The source was not asked, because an id is not a [`PathSegment`](crate::PathSegment).
    NotAsked,
}

impl From<Option<Member>> for MemberAnswer {
    fn from(member: Option<Member>) -> Self {
        member.map_or(Self::NotAMember, Self::Member)
    }
}

enum Source {
    Claim(ClaimedMemberships),
    Members(Members),
    Lookup(Arc<dyn Memberships>),
}

struct WorkspaceMember {
    source: Source,
    roles: Option<Vec<String>>,
}

impl WorkspaceMember {
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
            Source::Claim(claimed) => {
                let roles = claimed.roles_in(&subject.claims, &workspace);
                self.judge(&workspace, roles)
            }
            Source::Members(members) => {
                let role = members.get(&workspace).and_then(|of| of.get(&subject.id));
                self.judge(&workspace, role.map(|role| vec![role.as_str()]))
            }
            Source::Lookup(lookup) => match lookup.find(&workspace, &subject.id).await? {
                MemberAnswer::Member(member) => {
                    let roles = member.roles.iter().map(String::as_str).collect();
                    // From here on it is the workspace that the source names, whatever the client wrote.
                    self.judge(member.workspace.as_ref().unwrap_or(&workspace), Some(roles))
                }
                MemberAnswer::NotAMember => self.judge(&workspace, None),
                MemberAnswer::NotAsked => {
                    let subject = &subject.id;
                    let reason = format!(
                        "a URL cannot have workspace `{workspace}` and user `{subject}` in it"
                    );
                    Err(Denial::WorkspaceForbidden(reason))
                }
            },
        })
    }

    /// Judges by the subject's roles in the workspace; `None` if it is not a member.
    fn judge(
        &self,
        workspace: &WorkspaceId,
        roles: Option<Vec<&str>>,
    ) -> Result<Membership, Denial> {
        let Some(roles) = roles else {
            return Err(Denial::WorkspaceForbidden(format!(
                "the subject is no member of workspace `{workspace}`"
            )));
        };
        let mut roles = roles.into_iter();
        let role = match &self.roles {
            None => roles.next(),
            Some(allowed) => {
                let role = roles.find(|role| allowed.iter().any(|allowed| allowed == role));
                let too_low = || {
                    let reason =
                        format!("the subject's role in workspace `{workspace}` is not enough");
                    Denial::WorkspaceForbidden(reason)
                };
                Some(role.ok_or_else(too_low)?)
            }
        };
        Ok(Membership {
            workspace: workspace.clone(),
            role: role.map(str::to_owned),
        })
    }

    /// The subject's only workspace, if the source lists all of them.
    fn only_workspace(&self, subject: &Subject) -> Option<WorkspaceId> {
        match &self.source {
            Source::Claim(claimed) => claimed.only_workspace(&subject.claims),
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
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let PolicyInput { request, facts, .. } = input;
            let checked = self.check(request, facts.subject.as_deref()).await?;
            Ok(match checked {
                Ok(membership) => {
                    Decision::from(Verdict::Allow).with_fact(NewFact::Membership(membership))
                }
                Err(denial) => Decision::from(Verdict::Deny(denial)),
            })
        })
    }
}
