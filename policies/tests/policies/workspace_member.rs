//! `workspace_member`: by a claim, against a plain model of what each shape says; by a source that knows several
//! spellings of an id.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt as _, future::ready};
use policies::{
    BoxFuture, Facts, IdentityName, Member, MemberAnswer, Memberships, NewFact, Pass, Per,
    PolicyInput, Subject, SubjectId, Verdict, WorkspaceId, WorkspaceMemberSettings,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::helpers::{StoppedClock, build, request_from};

fn subject(claims: &Value) -> Subject {
    Subject {
        id: SubjectId::parse("user_1").unwrap(),
        identity: IdentityName::parse("app").unwrap(),
        session: false,
        claims: claims.as_object().unwrap().clone(),
        expires_at: None,
    }
}

/// The workspace and the role that the policy finds, if it lets the subject pass.
fn found(
    settings: &Value,
    claims: &Value,
    named: Option<&str>,
) -> Option<(String, Option<String>)> {
    let settings: WorkspaceMemberSettings = serde_json::from_value(settings.clone()).unwrap();
    let policy = build(&settings, None, Arc::new(StoppedClock::default()));
    let mut request = request_from(1);
    request.workspace = named.map(|id| WorkspaceId::parse(id).unwrap());
    let facts = Facts::new(Some(Arc::new(subject(claims))), None);
    let input = PolicyInput {
        request: &request,
        facts: &facts,
        pass: Pass::Issue,
    };
    let decision = policy.decide(input).now_or_never().unwrap().unwrap();
    match (decision.verdict, decision.new_fact) {
        (Verdict::Allow, Some(NewFact::Membership(membership))) => {
            Some((membership.workspace.to_string(), membership.role))
        }
        (Verdict::Deny(_), None) => None,
        _ => panic!("it allows with a membership, or denies without one"),
    }
}

/// The shapes in which one table of memberships can be written.
fn shapes(table: &BTreeMap<String, Vec<String>>) -> Vec<Value> {
    let list: Vec<_> = table
        .iter()
        .map(|(id, roles)| json!({ "id": id, "role": roles, "name": "id" }))
        .collect();
    let mut shapes = vec![json!(list), json!(table)];
    if let (1, Some(first)) = (list.len(), list.first()) {
        shapes.push(first.clone());
    }
    let has_single_roles = table.values().all(|roles| roles.len() == 1);
    if has_single_roles {
        let map: BTreeMap<_, _> = table.iter().map(|(id, roles)| (id, &roles[0])).collect();
        shapes.push(json!(map));
        let list = table
            .iter()
            .map(|(id, roles)| json!({ "id": id, "role": roles[0] }));
        shapes.push(list.collect());
    }
    shapes
}

proptest! {
    #[test]
    fn every_shape_says_the_same(
        table in prop::collection::btree_map("[a-c]{1,2}|[0-9]{1,2}", prop::collection::vec("[x-z]", 0..3), 0..4),
        named in prop::option::of("[a-c]{1,2}|[0-9]{1,2}"),
        wanted in prop::option::of(prop::collection::vec("[x-z]", 1..3)),
    ) {
        let mut settings = json!({ "claim": "workspaces" });
        if let Some(wanted) = &wanted {
            settings["roles"] = json!(wanted);
        }
        let only = (table.len() == 1).then(|| table.keys().next()).flatten();
        let workspace = named.as_ref().or(only);
        let expected = workspace.and_then(|workspace| {
            let roles = table.get(workspace)?;
            let role = match &wanted {
                None => roles.first(),
                Some(wanted) => Some(roles.iter().find(|role| wanted.contains(role))?),
            };
            Some((workspace.clone(), role.cloned()))
        });
        for shape in shapes(&table) {
            let claims = json!({ "workspaces": shape });
            let found = found(&settings, &claims, named.as_deref());
            prop_assert_eq!(&found, &expected, "{} {:?}", claims, named);
        }
    }

    #[test]
    fn an_id_that_is_an_integer_is_its_digits(id in any::<i64>(), other in any::<i64>()) {
        let settings = json!({ "claim": "/o/ids" });
        let claims = json!({ "o": { "ids": [id] } });
        let expected = Some((id.to_string(), None));
        prop_assert_eq!(found(&settings, &claims, None), expected.clone());
        prop_assert_eq!(found(&settings, &claims, Some(&id.to_string())), expected);
        prop_assert_eq!(found(&settings, &claims, Some(&format!("0{id}"))), None);
        prop_assert_eq!(found(&settings, &claims, Some(&other.to_string())).is_some(), id == other);
    }

    #[test]
    fn an_object_with_an_id_makes_nobody_a_member_of_its_members(
        id in "[a-z]{1,4}",
        others in prop::collection::btree_map("[a-z]{1,4}", "[a-z]{1,4}", 0..4),
        key in prop::sample::select(vec!["id", "org_id", "sub"]),
    ) {
        let settings = json!({ "claim": "o", "id_key": key, "role_key": "as" });
        let mut object = json!(others);
        object[key] = json!(id);
        let claims = json!({ "o": object });
        for named in others.keys().map(String::as_str).chain([key]) {
            let is_member = found(&settings, &claims, Some(named)).is_some();
            prop_assert_eq!(is_member, named == id, "{} {}", claims, named);
        }
        prop_assert!(found(&settings, &claims, Some(&id)).is_some());
    }
}

/// A source that holds ids for equal that differ in case and in leading zeros, and names the one that it has.
struct Loose;

fn meant(id: &str) -> Option<String> {
    let id = id.trim_start_matches('0').to_lowercase();
    (!id.is_empty()).then_some(id)
}

impl Memberships for Loose {
    fn find<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        _: &'a SubjectId,
    ) -> BoxFuture<'a, MemberAnswer> {
        let member = meant(workspace.as_str()).map(|id| Member {
            roles: Vec::new(),
            workspace: Some(WorkspaceId::parse(&id).unwrap()),
        });
        Box::pin(ready(Ok(MemberAnswer::from(member))))
    }
}

proptest! {
    #[test]
    fn two_spellings_of_a_workspace_never_have_two_counters(
        one in "[0aAbB]{1,4}",
        other in "[0aAbB]{1,4}",
        per in prop::sample::select(vec![json!(["workspace"]), json!(["user", "workspace"])]),
    ) {
        let settings: WorkspaceMemberSettings =
            toml::from_str("url = \"http://app/{workspace}/{user}\"").unwrap();
        let policy = build(&settings, Some(Arc::new(Loose)), Arc::new(StoppedClock::default()));
        let per: Per = serde_json::from_value(per).unwrap();
        let key = |named: &str| {
            let mut request = request_from(1);
            request.workspace = WorkspaceId::parse(named).ok();
            let mut facts = Facts::new(Some(Arc::new(subject(&json!({})))), None);
            let input = PolicyInput { request: &request, facts: &facts, pass: Pass::Issue };
            let decision = policy.decide(input).now_or_never().unwrap().unwrap();
            match decision.new_fact {
                Some(NewFact::Membership(membership)) => facts.membership = Some(membership),
                _ => return None,
            }
            Some(per.key(&request, &facts))
        };
        prop_assert_eq!(key(&one).is_some(), meant(&one).is_some());
        if let (Some(first), Some(second)) = (key(&one), key(&other)) {
            prop_assert_eq!(first == second, meant(&one) == meant(&other), "{} {}", one, other);
        }
    }
}
