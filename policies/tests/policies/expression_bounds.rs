//! How long an expression may take, and what it may walk and search.

use std::{sync::Arc, time::Duration};

use policies::{Condition, Expression, ExpressionSettings, Pass, SystemClock, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    expression::{facts, request, value},
    helpers::{TestPorts, build, decide},
};

const LONG: &str = "the expression uses a list of more than 1000 entries";

#[test]
fn an_expression_has_at_most_4096_bytes() {
    let text = |bytes: usize| format!("'{}' != ''", "x".repeat(bytes - 8));
    assert_eq!(value(&text(4096), &json!({})), Ok(true));
    assert!(Expression::parse(&text(4097)).is_err());
}

#[test]
fn an_expression_is_nested_at_most_40_levels_deep() {
    let brackets = |count: usize| format!("{}true{}", "(".repeat(count), ")".repeat(count));
    let sum = |terms: usize| vec!["1"; terms].join("+") + " == 1";
    let path = |names: usize| format!("has(subject.claims{})", ".a".repeat(names - 2));
    for (deepest, too_deep) in [
        (brackets(40), brackets(41)),
        (sum(39), sum(40)),
        (path(40), path(41)),
    ] {
        assert!(Expression::parse(&deepest).is_ok(), "{deepest}");
        let fault = Expression::parse(&too_deep).map(|_| ()).unwrap_err();
        assert!(fault.contains("nested"), "{too_deep}: {fault}");
    }
}

#[test]
fn an_expression_may_have_many_parts_side_by_side() {
    let many = |part: &str| format!("size([{}]) == 100", vec![part; 100].join(", "));
    for part in ["-1", "(1)", "[1]", "{'a': 1}", "!true", "1 + 1"] {
        assert_eq!(value(&many(part), &json!({})), Ok(true), "{part}");
    }
}

#[test]
fn work_on_a_claim_for_each_entry_of_a_list_is_rejected() {
    for body in [
        // Walks.
        "all(g, subject.claims.groups.all(h, g == h))",
        "exists(g, subject.claims.groups.exists_one(h, g == h))",
        "map(g, subject.claims.groups.filter(h, h != g)) == []",
        "all(g, size(subject.claims.groups.map(h, g)) > 0)",
        "all(g, [1, 2].exists(n, n == g))",
        // Searches.
        "all(g, g in subject.claims.groups)",
        "all(g, g in subject.claims['groups'])",
        "all(g, g in subject['claims'].groups)",
        "all(g, g in subject.claims)",
        "all(g, g in subject)",
        "filter(g, !(g in subject.claims.groups)) == []",
        "exists(g, g in (true ? subject.claims.groups : []))",
        "exists(g, true || g in subject.claims.org.groups)",
        "all(g, subject.claims.text.contains(g))",
        "all(g, g.contains(subject.claims.text))",
        // Comparisons of two claims.
        "all(g, subject.claims.groups == subject.claims.others)",
        "all(g, subject.claims != {'a': g} && subject.claims == subject.claims)",
        "all(g, subject.claims.text < subject.claims.other)",
        "all(g, [subject.claims.groups] == [g])",
        "all(g, {'a': subject.claims.groups} == g)",
        "all(g, {'a': g}[subject.claims.text])",
        "all(g, subject.claims.text.startsWith(subject.claims.other))",
        // Copies and joins.
        "map(g, subject.claims.groups + [g]) == []",
        "map(g, [g] + subject.claims.groups) == []",
        "map(g, g + subject.claims.text) == []",
        "map(g, subject.claims.groups) == []",
        "map(g, [g, subject.claims.groups]) == []",
        "map(g, string(subject.claims.text)) == []",
        "all(g, size(subject.claims.text) > g)",
        // Patterns.
        "all(g, subject.claims.text.matches('a'))",
        "all(g, g.matches(subject.claims.text))",
        "all(g, 'a'.matches(g))",
        "all(g, matches(subject.claims.text, 'a'))",
    ] {
        let text = format!("subject.claims.groups.{body}");
        let fault = Expression::parse(&text).map(|_| ()).unwrap_err();
        let expected = ["for each entry of a list", "for each entry of another list"];
        assert!(
            expected.iter().any(|expected| fault.contains(expected)),
            "{text}: {fault}"
        );
    }
    // However the list that is walked is made.
    for range in [
        "subject.claims",
        "[subject.claims.groups, []]",
        "['a', 'b']",
    ] {
        let text = format!("{range}.all(g, g in subject.claims.groups)");
        assert!(Expression::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn short_work_for_each_entry_is_allowed() {
    let claims = json!({
        "groups": ["a", "b"], "plan": "a", "level": 1, "limits": { "a": 1, "b": 2 },
        "flag": true, "off": false, "members": [{ "id": "ws_1", "roles": ["editor"] }], "https://app.example.com/w": "ws_1",
    });
    for text in [
        "subject.claims.groups.exists(g, g == subject.claims.plan)",
        "subject.claims.groups.exists(g, g == subject.claims['plan'])",
        "subject.claims.groups.all(g, g in ['a', 'b', 'c'] && subject.claims.plan in ['a'])",
        "subject.claims.groups.all(g, subject.claims.limits[g] > 0)",
        "subject.claims.groups.exists(g, subject.claims['limits'][g] == 2)",
        "subject.claims.groups.all(g, g.matches('^[a-z]$') && g.startsWith(g))",
        "subject.claims.groups.exists(g, subject.claims.plan.startsWith(g))",
        "subject.claims.groups.all(g, has(subject.claims.plan) && subject.claims.plan == 'a')",
        "subject.claims.groups.all(g, int(subject.claims.level) == 1)",
        "subject.claims.members.exists(m, m.id == workspace.id && 'editor' in m.roles)",
        "subject.claims.members.exists(m, m.id == subject.claims['https://app.example.com/w'])",
        "subject.claims.groups.map(g, 'group-' + g) == ['group-a', 'group-b']",
        "subject.claims.groups.filter(g, g != 'a') == ['b']",
        "subject.claims.groups.exists_one(g, g + workspace.id == 'aws_1')",
        "subject.claims.groups.all(g, subject.claims.flag && (g == 'a' || !subject.claims.off))",
        "subject.claims.groups.exists(g, g == (subject.claims.flag ? 'a' : 'c'))",
        // One walk after another.
        "subject.claims.groups.exists(g, g == 'a') && subject.claims.groups.all(g, g != 'c')",
        "subject.claims.groups.filter(g, g != 'a').all(g, g == 'b')",
        // Searches that are no part of a walk.
        "'a' in subject.claims.groups && subject.claims.plan in subject.claims.groups",
        "subject.claims.groups == subject.claims.groups",
    ] {
        assert_eq!(value(text, &claims), Ok(true), "{text}");
    }
}

#[test]
fn a_list_of_more_than_1000_entries_has_no_value_where_it_is_walked_or_searched() {
    let of = |length: usize| vec!["a"; length];
    let claims = json!({ "groups": of(1001), "nested": { "groups": [of(1001)] }, "plan": "pro" });
    for text in [
        "'a' in subject.claims.groups",
        "!('b' in subject.claims.groups)",
        "'a' in subject.claims['groups']",
        "'a' in subject.claims[request.purpose == 'avatar' ? 'groups' : 'x']",
        "'a' in subject.claims.nested.groups[0]",
        "subject.claims.groups.all(g, g == 'a')",
        "subject.claims.groups.exists(g, g == 'a')",
        "subject.claims.nested.groups.exists(g, 'a' in g)",
        "subject.claims.groups.map(g, g) != []",
        "subject.claims.groups != []",
        "[] != subject.claims.groups",
        "[subject.claims.groups] != [[]]",
        "!(subject.claims.groups == ['a'])",
        "!(['a'] == subject.claims.groups)",
        "subject.claims.nested != {'groups': [[]]}",
        "!([] in [subject.claims.groups])",
        "subject.claims.groups[0] == 'a'",
        "size(subject.claims.groups + ['a']) == 1002",
        // Whatever the rest says.
        "'a' in subject.claims.groups || true",
        "subject.claims.groups.all(g, g == 'a') || subject.claims.plan == 'pro'",
        "!(false && true) && ('a' in subject.claims.groups ? true : true)",
    ] {
        assert_eq!(value(text, &claims), Err(LONG.to_owned()), "{text}");
    }
    for text in [
        "subject.claims.plan == 'pro' || 'a' in subject.claims.groups",
        "subject.claims['plan'] == 'pro'",
        "has(subject.claims.groups) && has(subject.claims.nested.groups)",
        "size(subject.claims) == 3 && 'groups' in subject.claims",
        "size(subject.claims.groups) == 1001 && type(subject.claims.groups) == list",
        "subject.claims.exists(claim, claim == 'groups')",
    ] {
        assert_eq!(value(text, &claims), Ok(true), "{text}");
    }
    let claims = json!({ "groups": of(1000) });
    for text in [
        "'a' in subject.claims.groups && size(subject.claims.groups) == 1000",
        "subject.claims.groups.all(g, g == 'a')",
    ] {
        assert_eq!(value(text, &claims), Ok(true), "{text}");
    }
}

#[test]
fn a_list_that_is_too_long_denies_by_rule() {
    let settings = json!({ "allow": "'a' in subject.claims.groups || true" });
    let settings: ExpressionSettings = serde_json::from_value(settings).unwrap();
    let policy = build(
        &settings,
        &TestPorts::default(),
        Arc::new(SystemClock::new()),
    );
    for (length, reason) in [(1000, None), (1001, Some(LONG)), (10_000, Some(LONG))] {
        let (request, facts) = (request(), facts(&json!({ "groups": vec!["a"; length] })));
        let decision = decide(&*policy, &request, &facts, Pass::Issue).unwrap();
        match (decision.verdict, reason) {
            (Verdict::Deny(denial), Some(reason)) => {
                assert_eq!(
                    (denial.code(), &*denial.to_string()),
                    ("rule_forbidden", reason)
                );
            }
            (Verdict::Allow, None) => {}
            _ => panic!("{length} entries"),
        }
    }
}

#[test]
fn the_most_expensive_expressions_cost_less_than_100_searches_for_each_entry() {
    let claims = json!({
        "many": (0..1000).collect::<Vec<_>>(), "too_many": (0..4000).collect::<Vec<_>>(),
        "long": "x".repeat(100_000),
    });
    let doubled = format!("size({}) > 0", ["subject.claims.long"; 35].join(" + "));
    let each = format!(
        "subject.claims.many.all(x, {})",
        ["x != subject.claims.many"; 30].join(" && ")
    );
    // The measure, so that the speed of the machine does not count.
    let one_search = cpu_time_of(
        "subject.claims.many.all(x, x != subject.claims.many)",
        &claims,
    );
    for text in [
        "subject.claims.long.matches('(x+x+)+y')",
        "subject.claims.long.matches('^(x|x)*$')",
        "subject.claims.many.all(x, string(x).matches('^(x|[0-9]+)*$'))",
        "subject.claims.too_many.all(x, x >= 0)",
        each.as_str(),
        doubled.as_str(),
    ] {
        let took = cpu_time_of(text, &claims);
        assert!(
            took < 100 * one_search,
            "{text}: {took:?}, a search: {one_search:?}"
        );
    }
}

fn cpu_time_of(text: &str, claims: &Value) -> Duration {
    let before = cpu_time();
    let _ = value(text, claims);
    cpu_time() - before
}

/// The time that this thread has run on a processor, so that other processes do not count.
fn cpu_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = times.split(' ').next().unwrap().parse();
    Duration::from_nanos(nanos.unwrap())
}

/// Claims of a few names, of any shape.
fn claims() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|members| json!(members)),
        ]
    });
    prop::collection::btree_map("[abc]", value, 0..4).prop_map(|claims| json!(claims))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn expressions_that_share_values_have_the_same_results_as_each_alone(
        claims in claims(),
        texts in prop::collection::vec(prop::sample::select(vec![
            "subject.claims.a == subject.claims.b",
            "subject.claims.a.b == 'a'",
            "has(subject.claims.a.b) || has(subject.claims['b'].a)",
            "'a' in subject.claims.a",
            "subject.claims.b.exists(x, x == subject.claims.c)",
            "subject.claims.a.all(x, subject.claims.b[x] == 'a')",
            "subject.claims['a'] == subject.claims.a",
            "size(subject.claims) > 1 && type(subject.claims.a) == map",
            "size(subject) == 4 && subject.claims.c == null",
            "subject.claims.a.b.c == subject.claims['a']['b']['c']",
        ]), 1..8),
    ) {
        let shared = facts(&claims);
        for text in texts {
            let expression = Expression::parse(text).unwrap();
            let condition = Condition::new(expression.clone(), Arc::new(SystemClock::new()));
            // Which entry of a map has no value first is not determined.
            let found = condition.evaluate(&request(), &shared).ok();
            let alone = condition.evaluate(&request(), &facts(&claims)).ok();
            prop_assert_eq!(found, alone, "{}", text);
            // What is not read makes no difference.
            let read = Value::from(expression.claims().of(claims.as_object().unwrap()));
            let of_the_read = condition.evaluate(&request(), &facts(&read)).ok();
            prop_assert_eq!(found, of_the_read, "{}", text);
        }
    }
}
