//! `workspace_member`: which settings go together, and what they require.

use policies::{
    Fact, Findings, Interval, MembershipSource, PolicyKind as _, Reads, Roles, StoreUse,
    WorkspaceMemberSettings,
};
use serde_json::json;

use crate::{
    helpers::{faults_of, settings},
    scripted::store,
};

const URL: &str = "url = 'http://app/{workspace}/{user}'";
const QUERY: &str = "store = 'db'\nquery = 'select role, id from members where u = $1 and w = $2'";
const MEMBERS: &str = "members = { ws_1 = { user_1 = 'owner' } }";

#[track_caller]
fn assert_faults(table: &str, count: usize) {
    let settings: WorkspaceMemberSettings = settings(table);
    let faults = faults_of(&settings);
    assert_eq!(faults.len(), count, "{table}: {faults:?}");
}

#[test]
fn memberships_come_from_exactly_one_source() {
    for source in ["claim = 'ids'", MEMBERS, URL, QUERY] {
        assert_faults(source, 0);
        assert_faults(&format!("{source}\nroles = ['owner']"), 0);
    }
    assert_faults("", 1);
    assert_faults(&format!("claim = 'ids'\n{URL}"), 1);
    assert_faults(&format!("{MEMBERS}\n{QUERY}"), 1);
    assert_faults(&format!("{URL}\n{QUERY}"), 1);
}

#[test]
fn a_cache_requires_a_source_outside_of_the_gate() {
    for (source, count) in [("claim = 'ids'", 1), (MEMBERS, 1), (URL, 0), (QUERY, 0)] {
        assert_faults(&format!("{source}\ncache = '5s'"), count);
    }
}

#[test]
fn a_token_requires_a_url() {
    for (source, count) in [("claim = 'ids'", 1), (MEMBERS, 1), (URL, 0), (QUERY, 1)] {
        assert_faults(&format!("{source}\ntoken = {{ env = 'TOKEN' }}"), count);
    }
}

#[test]
fn a_store_requires_a_query_and_a_query_requires_a_store() {
    assert_faults("claim = 'ids'\nstore = 'db'", 1);
    assert_faults(
        "query = 'select role, id from m where u = $1 and w = $2'",
        1,
    );
}

#[test]
fn a_list_of_roles_is_not_empty() {
    assert_faults("claim = 'ids'\nroles = []", 1);
}

#[test]
fn keys_of_a_claim_require_a_claim() {
    for key in ["id_key = 'id'", "role_key = 'role'", "role_claim = 'role'"] {
        assert_faults(&format!("{MEMBERS}\n{key}"), 1);
        assert_faults(&format!("claim = 'ids'\n{key}"), 0);
    }
    assert_faults(
        &format!("{MEMBERS}\nid_key = 'i'\nrole_key = 'r'\nrole_claim = 'c'"),
        3,
    );
}

#[test]
fn a_role_and_an_id_come_from_different_places() {
    for (keys, count) in [
        ("id_key = 'role'", 1),
        ("role_key = 'id'", 1),
        ("id_key = 'x'\nrole_key = 'x'", 1),
        ("id_key = '/x'\nrole_key = 'x'", 1),
        ("id_key = '/x/id'\nrole_key = '/x/role'", 0),
        // With `role_claim`, no member of an object is a role.
        ("id_key = 'role'\nrole_claim = 'other'", 0),
        ("role_key = 'as'\nrole_claim = 'other'", 1),
        ("role_claim = 'ids'", 1),
        ("id_key = 'x'\nrole_key = 'y'", 0),
    ] {
        assert_faults(&format!("claim = 'ids'\n{keys}"), count);
    }
}

/// Whether a query is faulty, and whether there is a warning.
fn findings(query: &str) -> (bool, bool) {
    let table = toml::toml! { store = "db" };
    let mut table = table;
    table.insert("query".to_owned(), query.into());
    let settings: WorkspaceMemberSettings = table.try_into().unwrap();
    let mut findings = Findings::default();
    settings.check(&mut findings);
    let is = |found: &[(&str, String)]| match found {
        [] => false,
        [(key, _)] => *key == "query",
        _ => panic!("one finding suffices"),
    };
    (is(&findings.faults), is(&findings.warnings))
}

#[test]
fn a_query_uses_both_parameters() {
    for (query, is_faulty) in [
        ("select role, id from m where u = $1 and w = $2", false),
        ("select role, id from m where u = $1", true),
        ("select role, id from m where w = $2", true),
        ("select role, id from m", true),
    ] {
        assert_eq!(findings(query).0, is_faulty, "{query}");
    }
}

#[test]
fn a_query_that_certainly_selects_one_column_has_a_warning() {
    for (selected, has_warning) in [
        ("select role from m", true),
        ("SELECT role FROM m", true),
        ("select role, id from m", false),
        ("select * from m", false),
        ("select m.* from m", false),
        ("select role", true),
        ("select (a, b) from m", true),
        ("select coalesce(a, b) from m", true),
        ("select array[a, b] from m", true),
        ("select ((a), b)), c from m", false),
        ("select ')' || role from m", true),
        ("select 'a, b' from m", true),
        ("select \"a, b\" from m", true),
        ("select `a, b` from m", true),
        ("select 'x', id from m", false),
        ("select 'long', id from m", false),
        ("select role -- , id\nfrom m", true),
        ("select role -- the role\n, id from m", false),
        ("select role /* , id */ from m", true),
        ("select role /* the role */, id from m", false),
        ("select a - b from m, n", true),
        ("select a / b from m, n", true),
        ("select a - b, c from m", false),
        ("select a / b, c from m", false),
        ("with x as (select a, b from n) select role from x, y", true),
        ("with x as (select a from n) select role, id from x", false),
        ("select a is distinct from b, id from m", false),
        ("select a is distinct from b from m, n", true),
        ("select a is DISTINCT from b, id from m", false),
        ("select role union select a, b from m", true),
        ("select role intersect select a, b from m", true),
        ("select role except select a, b from m", true),
        ("select role where f(a, b), c", true),
        ("select role; select a, b from m", true),
        ("select from_date, id from m", false),
        ("select from_date from m, n", true),
        ("select größe from m, n", true),
        ("values (1)", false),
        ("table m", false),
        ("(select role from m)", false),
        ("select 'unfinished", true),
        ("select role /* unfinished, too", true),
        ("select role -- unfinished, too", true),
    ] {
        let query = format!("{selected} -- $1 $2");
        assert_eq!(findings(&query), (false, has_warning), "{query}");
    }
}

#[test]
fn a_lookup_has_two_seconds_by_default() {
    let settings: WorkspaceMemberSettings = settings(URL);
    assert_eq!(settings.timeout, Interval::from_secs(2));
}

#[test]
fn a_source_outside_of_the_gate_is_a_url_or_a_query() {
    let is = |table: &str, source: &str| {
        let settings: WorkspaceMemberSettings = settings(table);
        let found = match settings.lookup() {
            Some(MembershipSource::Url(_)) => "url",
            Some(MembershipSource::Query { .. }) => "query",
            None => "none",
        };
        assert_eq!(found, source, "{table}");
    };
    is(URL, "url");
    is(QUERY, "query");
    is("claim = 'ids'", "none");
    is(MEMBERS, "none");
}

#[test]
fn a_membership_requires_a_user_and_is_a_fact_for_later_policies() {
    for source in ["claim = 'ids'", MEMBERS, URL, QUERY] {
        let required = settings::<WorkspaceMemberSettings>(source).requirements();
        assert_eq!(required.needs, [Fact::Subject]);
        assert_eq!(required.provides, Some(Fact::Membership));
    }
}

#[test]
fn only_the_claims_of_the_settings_are_read() {
    let read = |table: &str| {
        let required = settings::<WorkspaceMemberSettings>(table).requirements();
        let claims = json!({ "ids": ["ws_1"], "role": "owner", "other": 1 });
        json!(required.claims.of(claims.as_object().unwrap()))
    };
    assert_eq!(read("claim = 'ids'"), json!({ "ids": ["ws_1"] }));
    let both = json!({ "ids": ["ws_1"], "role": "owner" });
    assert_eq!(read("claim = 'ids'\nrole_claim = 'role'"), both);
    let members: WorkspaceMemberSettings = settings(MEMBERS);
    assert_eq!(members.requirements().claims, Reads::default());
}

#[test]
fn a_query_names_its_store_and_a_url_its_service() {
    let query: WorkspaceMemberSettings = settings(QUERY);
    let required = query.requirements();
    assert_eq!(required.store, Some((store("db"), StoreUse::Memberships)));
    assert!(required.query.is_some_and(|query| query.contains("$1")));
    assert!(required.service.is_none() && required.if_counted_per_workspace.is_none());
    assert_eq!(query.requirements().counter_store(), None);

    let url: WorkspaceMemberSettings = settings(&format!("{URL}\ntoken = {{ env = 'TOKEN' }}"));
    let required = url.requirements();
    assert!(required.store.is_none() && required.query.is_none());
    assert!(
        required
            .if_counted_per_workspace
            .is_some_and(|(key, _)| key == "url")
    );
    let service = required.service.unwrap();
    assert!(service.is_template && service.token.is_some());
}

#[test]
fn a_description_names_the_source_and_the_roles() {
    for (table, parts) in [
        ("claim = '/o/ids'", ["/o/ids", ""]),
        (
            "claim = 'ids'\nroles = ['owner', 'editor']",
            ["owner", "editor"],
        ),
        (QUERY, ["database", "db"]),
        (URL, ["the app", ""]),
        (MEMBERS, ["table", ""]),
    ] {
        let text = settings::<WorkspaceMemberSettings>(table).describe();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn the_settings_say_which_roles_members_can_have() {
    let one = |roles: &[&str]| Roles::OneOf(roles.iter().map(|&role| role.to_owned()).collect());
    let editor = "roles = ['editor']";
    for (table, expected) in [
        (URL.to_owned(), Roles::Any),
        (
            format!("{QUERY}\n{editor}"),
            Roles::AtLeastOneOf(vec!["editor".to_owned()]),
        ),
        (MEMBERS.to_owned(), one(&["owner"])),
        (format!("{MEMBERS}\n{editor}"), one(&[])),
    ] {
        let required = settings::<WorkspaceMemberSettings>(&table).requirements();
        assert_eq!(required.roles, expected, "{table}");
    }
}
