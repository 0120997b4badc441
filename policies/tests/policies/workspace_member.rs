//! `workspace_member`: who is a member, in which role, by each source of memberships.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::ready;
use policies::{
    BoxFuture, Facts, Fault, Member, MemberAnswer, Memberships, NewFact, Pass, Per, Policy,
    SubjectId, Verdict, WorkspaceId, WorkspaceMemberSettings,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    helpers::{
        StoppedClock, TestPorts, build, decide, denial_code, request_for_workspace, settings, user,
    },
    scripted::store_is_down,
};

/// The workspace with the role in it, or the code of the denial.
type Answer = Result<(String, Option<String>), &'static str>;

fn ask(policy: &dyn Policy, facts: &Facts, named: Option<&str>) -> Answer {
    let request = request_for_workspace(named);
    let decision = decide(policy, &request, facts, Pass::Issue).unwrap();
    match (decision.verdict, decision.new_fact) {
        (Verdict::Allow, Some(NewFact::Membership(membership))) => {
            Ok((membership.workspace.to_string(), membership.role))
        }
        (verdict, None) => Err(denial_code(&verdict).unwrap()),
        _ => panic!("it allows with a membership, or denies without one"),
    }
}

/// The membership of a user with these claims, if the policy allows.
fn found(
    settings: &Value,
    claims: &Value,
    named: Option<&str>,
) -> Option<(String, Option<String>)> {
    let settings: WorkspaceMemberSettings = serde_json::from_value(settings.clone()).unwrap();
    let policy = build(
        &settings,
        &TestPorts::default(),
        Arc::new(StoppedClock::default()),
    );
    let facts = Facts::new(Some(user("user_1", claims)), None);
    ask(&*policy, &facts, named).ok()
}

/// The shapes in which one table of memberships can be written.
fn shapes(table: &BTreeMap<String, Vec<String>>) -> Vec<Value> {
    let list: Vec<_> = table
        .iter()
        .map(|(id, roles)| json!({ "id": id, "role": roles, "name": "id" }))
        .collect();
    let by_id: BTreeMap<_, _> = table
        .iter()
        .map(|(id, roles)| (id, json!({ "role": roles, "name": "id" })))
        .collect();
    let by_name: BTreeMap<_, _> = list
        .iter()
        .enumerate()
        .map(|(number, workspace)| (format!("name {number}"), workspace))
        .collect();
    let mut shapes = vec![json!(list), json!(table), json!(by_id), json!(by_name)];
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
    fn all_shapes_of_a_claim_mean_the_same(
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
    fn a_membership_has_all_roles_of_the_member(
        roles in prop::collection::vec("[x-z]", 0..4),
        wanted in prop::option::of(prop::collection::vec("[x-z]", 1..3)),
    ) {
        let allowed = wanted.map_or_else(String::new, |wanted| format!("roles = {}", json!(wanted)));
        let settings: WorkspaceMemberSettings = settings(&format!("claim = 'o'\n{allowed}"));
        let policy = build(&settings, &TestPorts::default(), Arc::new(StoppedClock::default()));
        let claims = json!({ "o": [{ "id": "a", "role": roles }] });
        let facts = Facts::new(Some(user("user_1", &claims)), None);
        let decision = decide(&*policy, &request_for_workspace(None), &facts, Pass::Issue).unwrap();
        if let Some(NewFact::Membership(membership)) = decision.new_fact {
            for role in ["x", "y", "z"] {
                prop_assert_eq!(membership.has_role(role), roles.iter().any(|other| other == role));
            }
            prop_assert_eq!(membership.role.is_some(), !roles.is_empty());
        }
    }

    #[test]
    fn an_integer_is_an_id_in_decimal_digits(id in any::<i64>(), other in any::<i64>()) {
        let settings = json!({ "claim": "/o/ids" });
        let claims = json!({ "o": { "ids": [id] } });
        let expected = Some((id.to_string(), None));
        prop_assert_eq!(found(&settings, &claims, None), expected.clone());
        prop_assert_eq!(found(&settings, &claims, Some(&id.to_string())), expected);
        prop_assert_eq!(found(&settings, &claims, Some(&format!("0{id}"))), None);
        prop_assert_eq!(found(&settings, &claims, Some(&other.to_string())).is_some(), id == other);
    }

    #[test]
    fn the_other_members_of_an_object_with_an_id_are_not_workspaces(
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

/// A database that compares ids without case and leading zeros, and returns its own spelling.
struct LooseIds;

/// The workspace that an id means.
fn meant(id: &str) -> Option<String> {
    let id = id.trim_start_matches('0').to_lowercase();
    (!id.is_empty()).then_some(id)
}

impl Memberships for LooseIds {
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

/// A policy that asks this source.
fn looked_up(rest: &str, source: impl Memberships + 'static) -> Arc<dyn Policy> {
    let settings: WorkspaceMemberSettings = settings(&format!(
        "url = 'http://app/{{workspace}}/{{user}}'\n{rest}"
    ));
    let ports = TestPorts {
        memberships: Some(Arc::new(source)),
        ..TestPorts::default()
    };
    build(&settings, &ports, Arc::new(StoppedClock::default()))
}

proptest! {
    #[test]
    fn two_spellings_of_a_workspace_share_a_counter(
        one in "[0aAbB]{1,4}",
        other in "[0aAbB]{1,4}",
        per in prop::sample::select(vec![json!(["workspace"]), json!(["user", "workspace"])]),
    ) {
        let policy = looked_up("", LooseIds);
        let per: Per = serde_json::from_value(per).unwrap();
        let key = |named: &str| {
            let request = request_for_workspace(Some(named));
            let mut facts = signed_in();
            let decision = decide(&*policy, &request, &facts, Pass::Issue).unwrap();
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

fn signed_in() -> Facts {
    Facts::new(Some(user("user_1", &json!({}))), None)
}

/// A source that always gives the same answer.
struct Always(fn() -> Result<MemberAnswer, Fault>);

impl Memberships for Always {
    fn find<'a>(&'a self, _: &'a WorkspaceId, _: &'a SubjectId) -> BoxFuture<'a, MemberAnswer> {
        Box::pin(ready((self.0)()))
    }
}

fn editor_and_viewer() -> Result<MemberAnswer, Fault> {
    Ok(MemberAnswer::Member(Member {
        roles: vec!["viewer".to_owned(), "editor".to_owned()],
        workspace: None,
    }))
}

fn member_of_ws_1(role: &str) -> Answer {
    Ok(("ws_1".to_owned(), Some(role.to_owned())))
}

#[test]
fn without_roles_any_member_is_allowed_and_has_its_first_role() {
    let policy = looked_up("", Always(editor_and_viewer));
    let answer = ask(&*policy, &signed_in(), Some("ws_1"));
    assert_eq!(answer, member_of_ws_1("viewer"));
}

#[test]
fn with_roles_a_member_needs_one_of_them() {
    let allowed = |roles: &str| {
        let policy = looked_up(&format!("roles = {roles}"), Always(editor_and_viewer));
        ask(&*policy, &signed_in(), Some("ws_1"))
    };
    assert_eq!(allowed("['owner', 'editor']"), member_of_ws_1("editor"));
    assert_eq!(allowed("['owner']"), Err("workspace_forbidden"));
}

#[test]
fn a_user_that_the_source_does_not_know_or_cannot_be_asked_about_is_denied() {
    let answers: [fn() -> Result<MemberAnswer, Fault>; 2] = [
        || Ok(MemberAnswer::NotAMember),
        || Ok(MemberAnswer::NotAsked),
    ];
    for answer in answers {
        let policy = looked_up("", Always(answer));
        let answer = ask(&*policy, &signed_in(), Some("ws_1"));
        assert_eq!(answer, Err("workspace_forbidden"));
    }
}

#[test]
fn if_the_source_fails_the_policy_faults() {
    let policy = looked_up("", Always(|| Err(store_is_down())));
    let request = request_for_workspace(Some("ws_1"));
    let decided = decide(&*policy, &request, &signed_in(), Pass::Issue);
    assert!(matches!(decided, Err(Fault::Store { .. })));
}

#[test]
fn a_source_outside_of_the_gate_needs_the_name_of_a_workspace() {
    let policy = looked_up("", Always(editor_and_viewer));
    assert_eq!(ask(&*policy, &signed_in(), None), Err("workspace_required"));
}

#[test]
fn without_a_user_the_policy_denies() {
    let policy = looked_up("", Always(editor_and_viewer));
    let nobody = Facts::default();
    assert_eq!(
        ask(&*policy, &nobody, Some("ws_1")),
        Err("workspace_forbidden")
    );
    assert_eq!(ask(&*policy, &nobody, None), Err("workspace_required"));
}

#[test]
fn a_table_of_members_knows_the_only_workspace_of_a_user() {
    let settings: WorkspaceMemberSettings = settings(
        "members = { ws_1 = { user_1 = 'owner', user_2 = 'viewer' }, ws_2 = { user_2 = 'owner' } }",
    );
    let policy = build(
        &settings,
        &TestPorts::default(),
        Arc::new(StoppedClock::default()),
    );
    let ask = |id: &str, named: Option<&str>| {
        let facts = Facts::new(Some(user(id, &json!({}))), None);
        ask(&*policy, &facts, named)
    };
    assert_eq!(ask("user_1", None), member_of_ws_1("owner"));
    assert_eq!(ask("user_2", None), Err("workspace_required"));
    assert_eq!(ask("user_3", None), Err("workspace_required"));
    assert_eq!(ask("user_2", Some("ws_1")), member_of_ws_1("viewer"));
    assert_eq!(ask("user_1", Some("ws_2")), Err("workspace_forbidden"));
    assert_eq!(ask("user_1", Some("ws_3")), Err("workspace_forbidden"));
}

#[test]
fn a_role_in_another_claim_counts_only_for_a_user_with_one_workspace() {
    let settings = json!({ "claim": "ids", "role_claim": "role", "roles": ["editor"] });
    let of = |ids: &Value| {
        let claims = json!({ "ids": ids, "role": "editor" });
        found(&settings, &claims, Some("ws_1"))
    };
    let editor = Some(("ws_1".to_owned(), Some("editor".to_owned())));
    assert_eq!(of(&json!(["ws_1"])), editor);
    assert_eq!(of(&json!(["ws_1", "ws_1"])), editor);
    assert_eq!(of(&json!(["ws_1", "ws_2"])), None);
}

#[test]
fn entries_of_another_shape_are_ignored() {
    let settings = json!({ "claim": "ids" });
    for ids in [
        json!(null),
        json!(true),
        json!(1.5),
        json!([null, true, 1.5, ["ws_1"]]),
        json!([{ "name": "ws_1" }, { "id": true }]),
        json!({ "ws_1": 1, "ws_2": true }),
        // An object whose id is not one names no workspace, not even by its key.
        json!({ "ws_1": { "id": null }, "true": { "id": true }, "1.5": { "id": [] } }),
    ] {
        let claims = json!({ "ids": ids });
        for named in [None, Some("ws_1"), Some("1.5"), Some("true")] {
            assert_eq!(found(&settings, &claims, named), None, "{claims} {named:?}");
        }
    }
    // A map may list a workspace without a role.
    let claims = json!({ "ids": { "ws_1": null, "ws_2": 1 } });
    assert_eq!(
        found(&settings, &claims, None),
        Some(("ws_1".to_owned(), None))
    );
    let claims = json!({ "ids": u64::MAX });
    assert_eq!(
        found(&settings, &claims, None),
        Some((u64::MAX.to_string(), None))
    );
}
