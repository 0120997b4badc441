//! `as_list` and `split`: claims that are one value, a list, or a text with separators.

use policies::Expression;
use serde_json::{Value, json};

use crate::expression::value;

fn assert_true(text: &str, claims: &Value) {
    assert_eq!(value(text, claims), Ok(true), "{text} {claims}");
}

#[test]
fn as_list_makes_one_value_a_list_and_keeps_a_list() {
    for (groups, count) in [
        (json!("staff"), 1),
        (json!(["staff"]), 1),
        (json!(["staff", "admin"]), 2),
        (json!({ "staff": true }), 1),
        (json!([]), 0),
        (json!(null), 1),
        (json!(7), 1),
    ] {
        let claims = json!({ "groups": groups });
        let text = format!("size(as_list(subject.claims.groups)) == {count}");
        assert_true(&text, &claims);
    }
    for groups in [json!("staff"), json!(["admin", "staff"])] {
        let claims = json!({ "groups": groups });
        assert_true("'staff' in as_list(subject.claims.groups)", &claims);
        assert_true("'staff' in as_list(subject.claims['groups'])", &claims);
        assert_true(
            "as_list(subject.claims.groups).exists(g, g == 'staff') && !('x' in as_list(subject.claims.groups))",
            &claims,
        );
    }
    assert_true(
        "as_list(as_list(1)) == [1] && as_list(request.purpose) == ['avatar']",
        &json!({}),
    );
    assert_true("as_list(subject)[0].id == 'user_1'", &json!({}));
}

#[test]
fn split_cuts_a_text_at_each_separator_and_keeps_everything_else() {
    for (text, separator, entries) in [
        ("a,b", ",", "['a', 'b']"),
        ("a, b", ",", "['a', ' b']"),
        ("a", ",", "['a']"),
        ("", ",", "['']"),
        ("a,,b,", ",", "['a', '', 'b', '']"),
        ("read write", " ", "['read', 'write']"),
        ("a::b:c", "::", "['a', 'b:c']"),
        ("ä|ö", "|", "['ä', 'ö']"),
    ] {
        let claims = json!({ "text": text, "by": separator });
        assert_true(
            &format!("split(subject.claims.text, '{separator}') == {entries}"),
            &claims,
        );
        assert_true(
            &format!("subject.claims.text.split(subject.claims.by) == {entries}"),
            &claims,
        );
    }
    let claims = json!({ "scope": "openid upload:write" });
    assert_true(
        "'upload:write' in split(subject.claims.scope, ' ')",
        &claims,
    );
    assert_true(
        "split(subject.claims.scope, ' ').exists(s, s == 'openid')",
        &claims,
    );
}

#[test]
fn a_list_of_nothing_and_a_split_of_something_else_have_no_value() {
    let claims = json!({ "groups": ["a,b"], "number": 7, "text": "a,b" });
    for (text, reason) in [
        (
            "'a' in as_list(subject.claims.absent)",
            "there is no `absent`",
        ),
        (
            "'a' in split(subject.claims.absent, ',')",
            "there is no `absent`",
        ),
        (
            "'a' in split(subject.claims.groups, ',')",
            "`split` does not take `list` and `string`",
        ),
        (
            "'a' in split(subject.claims.number, ',')",
            "`split` does not take `int` and `string`",
        ),
        (
            "'a' in split(subject.claims.text, '')",
            "`split` does not take this value",
        ),
        (
            "!('a' in split(subject.claims.text, ''))",
            "`split` does not take this value",
        ),
    ] {
        let error = value(text, &claims).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn lists_that_are_made_have_at_most_1000_entries() {
    let long = |entries: usize| json!({ "text": vec!["a"; entries].join(","), "list": vec!["a"; entries] });
    assert_true("size(split(subject.claims.text, ',')) == 1000", &long(1000));
    assert_true("'a' in as_list(subject.claims.list)", &long(1000));
    for text in [
        "size(split(subject.claims.text, ',')) > 0",
        "'a' in split(subject.claims.text, ',')",
        "!('b' in split(subject.claims.text, ','))",
        "subject.claims.text.split(',').all(g, g == 'a')",
        "'a' in as_list(subject.claims.list)",
        "!('b' in as_list(subject.claims.list))",
        "as_list(subject.claims.list).all(g, g == 'a') || true",
        "as_list(as_list(subject.claims.list)) != []",
    ] {
        assert!(value(text, &long(1001)).is_err(), "{text}");
    }
    assert_true("size(as_list(subject.claims.list)) == 1001", &long(1001));
}

#[test]
fn a_claim_is_not_made_a_list_for_each_entry_of_another() {
    for body in [
        "all(g, g in split(subject.claims.text, ','))",
        "all(g, g in as_list(subject.claims.text))",
        "all(g, size(split(subject.claims.text, ',')) > 0)",
        "all(g, as_list(subject.claims.text) != [g])",
        "all(g, size(split(g, subject.claims.text)) > 0)",
        "all(g, subject.claims.text.split(',') == [g])",
        "all(g, split(g, ',').all(h, h == 'a'))",
    ] {
        let text = format!("subject.claims.groups.{body}");
        assert!(Expression::parse(&text).is_err(), "{text}");
    }
    let claims = json!({ "members": [{ "roles": "viewer editor", "id": 1 }, { "roles": "editor", "id": [2] }] });
    for text in [
        "subject.claims.members.all(m, 'editor' in split(m.roles, ' '))",
        "subject.claims.members.exists(m, 2 in as_list(m.id))",
    ] {
        assert_true(text, &claims);
    }
    for text in ["aslist([])", "subject.claims.text.splitt(',')"] {
        let fault = Expression::parse(text).map(|_| ()).unwrap_err();
        assert!(fault.contains("unknown function"), "{text}: {fault}");
    }
}
