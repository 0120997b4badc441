//! `workspace_member`: the user is a member of the workspace, in an allowed role.

mod checks;

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, BuildContext, BuildError, CallSettings, ClaimPath, Decision, Denial, Endpoint, Fact,
    Fault, Findings, Interval, MemberAnswer, Membership, MembershipSource, Memberships, NewFact,
    Policy, PolicyInput, PolicyKind, Reads, Requirements, Roles, SecretSource, ServiceCall,
    StoreName, StoreUse, Subject, SubjectId, UploadRequest, Verdict, WorkspaceId,
    engine::{claims::ClaimedMemberships, ports::default_timeout},
};

const UNSEEN_ANSWERS: &str = "limits per workspace follow, but the responses may not contain `workspace`: \
    without it, each spelling of an id that the app accepts has its own limits";

/// The user is a member of the workspace. Exactly one of `claim`, `members`, `url` and `query` names the source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceMemberSettings {
    /// The claim that lists the user's workspaces: `"ws_1"`, `["ws_1", 7]`, `[{"id":"ws_1","role":"editor"}]`,
    /// `{"id":"ws_1","role":"editor"}`, `{"ws_1":"editor"}`, `{"ws_1":{"role":"editor"}}` or `{"name":{"id":"ws_1"}}`. A
    /// role may be a list of roles. Default: none.
    #[serde(default)]
    pub claim: Option<ClaimPath>,
    /// The member of an object that is the workspace's id, by name or JSON Pointer. Requires `claim`.
    /// Default: `"id"`.
    #[serde(default)]
    pub id_key: Option<ClaimPath>,
    /// The member of an object that is the role, by name or JSON Pointer. Requires `claim`.
    /// Default: `"role"`.
    #[serde(default)]
    pub role_key: Option<ClaimPath>,
    /// Another claim, which is the role in the user's only workspace. A user with several workspaces then has no role.
    /// Requires `claim`. Default: none.
    #[serde(default)]
    pub role_claim: Option<ClaimPath>,
    /// The members of each workspace: `{ ws_1 = { user_1 = "owner" } }`. Default: none.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "ws_1": { "user_1": "owner" } }]))]
    pub members: Option<Members>,
    /// The URL of the app, for a GET request. The gate replaces `{workspace}` and `{user}`. The app responds with 200
    /// and `{"role": ..., "workspace": ...}`, or with 404. `role` is a text, a list of texts or null; `workspace` is
    /// the id as the app spells it. Default: none.
    #[serde(default)]
    pub url: Option<Endpoint>,
    /// The database for `query`: a name in `[stores]`. Default: none.
    #[serde(default)]
    pub store: Option<StoreName>,
    /// The SQL query. `$1` is the user's id and `$2` the workspace's id. Without a row, the user is not a member. The
    /// first column of a row is the role, or null. The second is the workspace's id as the database spells it.
    /// Default: none.
    #[serde(default)]
    pub query: Option<String>,
    /// The bearer token for the app. Default: none.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// Whether the token may be sent over plain http to another machine.
    #[serde(default)]
    pub insecure_http: bool,
    /// The allowed roles. Default: none; every member is allowed.
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    /// How long a response of the app or of the database is cached. Default: none; the gate asks for every request.
    #[serde(default)]
    pub cache: Option<Interval>,
    /// How long a call to the app or to the database may take. Default: `"2s"`.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

impl WorkspaceMemberSettings {
    /// The memberships in the claim, if a claim is the source.
    fn claimed(&self) -> Option<ClaimedMemberships> {
        let claim = self.claim.clone()?;
        let key =
            |key: &Option<ClaimPath>, default| key.clone().unwrap_or(ClaimPath::named(default));
        Some(ClaimedMemberships {
            claim,
            id_key: key(&self.id_key, "id"),
            role_key: key(&self.role_key, "role"),
            role_claim: self.role_claim.clone(),
        })
    }

    /// The roles that the policy's members can have.
    fn possible_roles(&self) -> Roles {
        let is_allowed = |role: &&String| {
            self.roles
                .as_ref()
                .is_none_or(|allowed| allowed.contains(role))
        };
        match (&self.members, &self.roles) {
            (Some(members), _) => {
                let roles = members.values().flat_map(BTreeMap::values);
                Roles::OneOf(roles.filter(is_allowed).cloned().collect())
            }
            (None, Some(allowed)) => Roles::AtLeastOneOf(allowed.clone()),
            (None, None) => Roles::Any,
        }
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
            endpoint: url.clone(),
            token: self.token.clone(),
            insecure_http: self.insecure_http,
            is_template: true,
        });
        Requirements {
            needs: vec![Fact::Subject],
            provides: Some(Fact::Membership),
            claims,
            store: store.map(|store| (store, StoreUse::Memberships)),
            if_counted_per_workspace: service.as_ref().map(|_| ("url", UNSEEN_ANSWERS)),
            service,
            query: self.query.clone(),
            roles: self.possible_roles(),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        self.check_keys(findings);
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let source = match (self.claimed(), self.lookup()) {
            (Some(claimed), _) => Source::Claim(claimed.into()),
            (None, Some(lookup)) => {
                let call = CallSettings {
                    timeout: self.timeout,
                    cache: self.cache,
                };
                Source::Lookup(context.ports.memberships(lookup, call)?)
            }
            (None, None) => Source::Members(self.members.clone().unwrap_or_default()),
        };
        Ok(Arc::new(WorkspaceMember {
            source,
            roles: self.roles.clone(),
        }))
    }
}

/// The role of each member of each workspace.
pub type Members = BTreeMap<WorkspaceId, BTreeMap<SubjectId, String>>;

enum Source {
    Claim(Box<ClaimedMemberships>),
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
            let reason = self.why_no_workspace(subject);
            let reason = reason.unwrap_or_else(|| "the user does not have exactly one".to_owned());
            return Ok(Err(Denial::WorkspaceRequired(reason)));
        };
        let Some(subject) = subject else {
            let reason = format!("without a user, there is no member of workspace `{workspace}`");
            return Ok(Err(Denial::WorkspaceForbidden(reason)));
        };
        Ok(match &self.source {
            Source::Claim(claimed) => {
                let roles = claimed.roles_in(&subject.claims, &workspace);
                self.judge(&workspace, subject, roles)
            }
            Source::Members(members) => {
                let role = members.get(&workspace).and_then(|of| of.get(&subject.id));
                self.judge(&workspace, subject, role.map(|role| vec![role.as_str()]))
            }
            Source::Lookup(lookup) => match lookup.find(&workspace, &subject.id).await? {
                MemberAnswer::Member(member) => {
                    let roles = member.roles.iter().map(String::as_str).collect();
                    // From here on, the workspace is spelled as the source spells it.
                    let workspace = member.workspace.as_ref().unwrap_or(&workspace);
                    self.judge(workspace, subject, Some(roles))
                }
                MemberAnswer::NotAMember => self.judge(&workspace, subject, None),
                MemberAnswer::NotAsked => {
                    let subject = &subject.id;
                    let reason = format!(
                        "workspace `{workspace}` or user `{subject}` has a character that a URL may not contain"
                    );
                    Err(Denial::WorkspaceForbidden(reason))
                }
            },
        })
    }

    /// Decides by the roles in the workspace. `None` stands for a user who is not a member.
    fn judge(
        &self,
        workspace: &WorkspaceId,
        subject: &Subject,
        roles: Option<Vec<&str>>,
    ) -> Result<Membership, Denial> {
        let forbidden = |reason: String, cause: Option<String>| {
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Denial::WorkspaceForbidden(reason + &cause)
        };
        let Some(roles) = roles else {
            let reason = format!("the user is not a member of workspace `{workspace}`");
            return Err(forbidden(reason, self.why_no_workspace(Some(subject))));
        };
        let has_role = !roles.is_empty();
        let role = match &self.roles {
            None => roles.first().copied(),
            Some(allowed) => {
                let mut roles = roles.iter().copied();
                let role = roles.find(|role| allowed.iter().any(|allowed| allowed == role));
                let too_low = || {
                    let reason =
                        format!("the user's role in workspace `{workspace}` is not allowed");
                    let cause = match &self.source {
                        Source::Claim(claimed) if !has_role => {
                            Some(claimed.why_no_role(&subject.claims))
                        }
                        _ => None,
                    };
                    forbidden(reason, cause)
                };
                Some(role.ok_or_else(too_low)?)
            }
        };
        let others = roles.iter().filter(|other| Some(**other) != role);
        Ok(Membership {
            workspace: workspace.clone(),
            role: role.map(str::to_owned),
            other_roles: others.map(|other| (*other).to_owned()).collect(),
        })
    }

    /// Says what the user's claims lack if they list no workspace.
    fn why_no_workspace(&self, subject: Option<&Subject>) -> Option<String> {
        match &self.source {
            Source::Claim(claimed) => claimed.why_no_workspace(&subject?.claims),
            Source::Members(_) | Source::Lookup(_) => None,
        }
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

/// Asks about a user and a workspace that do not exist.
async fn try_lookup(lookup: &dyn Memberships) -> Result<String, Fault> {
    const UNKNOWN: &str = "imgwire-gate-doctor";

    let described = lookup.describe().await?;
    let workspace = WorkspaceId::parse(UNKNOWN).map_err(|error| Fault::Service(error.into()))?;
    let user = SubjectId::parse(UNKNOWN).map_err(|error| Fault::Service(error.into()))?;
    if let MemberAnswer::Member(_) = lookup.find(&workspace, &user).await? {
        let message = "an unknown user is a member of an unknown workspace";
        return Err(Fault::Service(message.into()));
    }
    let described = described.map_or_else(String::new, |described| format!("{described}; "));
    Ok(described + "an unknown user is not a member")
}

impl Policy for WorkspaceMember {
    fn try_out(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            match &self.source {
                Source::Lookup(lookup) => try_lookup(&**lookup).await.map(Some),
                Source::Claim(_) | Source::Members(_) => Ok(None),
            }
        })
    }

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
