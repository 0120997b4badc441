//! Expressions: what they see, what they refuse to be, and that they end.

use std::sync::Arc;

use futures_util::FutureExt as _;
use policies::{
    Chain, Clock, Condition, DeclaredFile, Expression, ExpressionSettings, Facts, Mode, OnFailure,
    Outcome, Pass, Purpose, Reason, SystemClock, Trace, UploadRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::helpers::{TestPorts, build, link, member_of, request_from, user};

pub(crate) fn facts(claims: &Value) -> Facts {
    let membership = member_of("ws_1", Some("owner"));
    Facts::new(Some(user("user_1", claims)), Some(membership))
}

pub(crate) fn request() -> UploadRequest {
    let mut request = request_from(1);
    request.purpose = Some(Purpose::parse("avatar").unwrap());
    request.file = Some(DeclaredFile {
        name: Some("me.png".to_owned()),
        mime_type: None,
        size: Some(48_213),
    });
    request
}

pub(crate) fn value(text: &str, claims: &Value) -> Result<bool, String> {
    let expression = Expression::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    let condition = Condition::new(expression, Arc::new(SystemClock::new()));
    condition
        .evaluate(&request(), &facts(claims))
        .map_err(|error| error.to_string())
}

#[test]
fn expressions_see_the_facts() {
    let claims = json!({
        "plan": "pro", "age": 17, "score": 0.5, "suspended": false, "nothing": null,
        "groups": ["a", "b"], "org": { "name": "acme" }, "https://app.example.com/role": "x",
    });
    for text in [
        "true",
        "subject.id == 'user_1' && subject.identity == 'app'",
        "subject.session == false && !subject.session && has(subject.session)",
        "type(subject) == map && subject['session'] == false",
        "subject.claims.plan in ['pro', 'team'] || workspace.role == 'owner'",
        "subject.claims.age >= 17 && subject.claims.score < 1.0",
        "!subject.claims.suspended && subject.claims.nothing == null",
        "'b' in subject.claims.groups && size(subject.claims.groups) == 2",
        "subject.claims.org.name.startsWith('ac')",
        "subject.claims['https://app.example.com/role'] == 'x'",
        "workspace.id == 'ws_1'",
        "!has(request.workspace) && !('workspace' in request)",
        "request.purpose == 'avatar' && request.route == '/api/imgwire/upload-token'",
        "request.file.name.endsWith('.png') && request.file.size < 50000",
        "request.ip.matches('^[0-9.]+$')",
        "request.time > timestamp('2020-01-01T00:00:00Z')",
        "has(subject.claims.plan) && !has(subject.claims.absent)",
        "!has(request.file.mime_type) && has(request.file.size)",
        "subject.claims.groups.exists(group, group == 'a')",
        "type(subject.claims.plan) == string",
        // A fact as a whole, beside some of its parts.
        "size(subject.claims) == 8 && subject.claims.plan == 'pro'",
        "subject.claims['plan'] == 'pro' && subject['id'] == 'user_1'",
        "subject.claims.org == {'name': 'acme'} && subject.claims.org.name == 'acme'",
        "subject.claims.exists(claim, claim == 'groups')",
        "'role' in workspace && !('mime_type' in request.file) && 'time' in request",
        "size(subject) == 4 && has(subject.claims)",
        "[subject.claims].exists(claims, claims.plan == 'pro')",
        "['x'].all(subject, subject == 'x')",
        "[{'claims': {'plan': 'x'}}].all(subject, subject.claims.plan == 'x')",
    ] {
        assert_eq!(value(text, &claims), Ok(true), "{text}");
    }
    for text in [
        "false",
        "subject.claims.plan == 1",
        "workspace.role in ['viewer']",
    ] {
        assert_eq!(value(text, &claims), Ok(false), "{text}");
    }
    for (text, found) in [
        ("1 + 1", "int"),
        ("'true'", "string"),
        ("null", "null"),
        ("[true]", "list"),
        ("subject.claims", "map"),
        ("subject.claims.plan", "string"),
        ("request.time", "timestamp"),
    ] {
        let reason = value(text, &claims).unwrap_err();
        assert!(reason.ends_with(found), "{text}: {reason}");
    }
}

#[test]
fn a_missing_fact_or_a_wrong_type_has_no_value() {
    let claims = json!({ "plan": null, "age": "17", "groups": "a" });
    for text in [
        "subject.claims.absent == 'x'",
        "subject.claims.age >= 17",
        "subject.claims.plan.startsWith('p')",
        "subject.claims.groups.exists(group, group == 'a')",
        "request.file.mime_type == 'image/png'",
        "1 / 0 == 1",
        "int('x') == 1",
        "subject.claims.age.matches('(')",
    ] {
        assert!(value(text, &claims).is_err(), "{text}");
    }
    // Where the rest decides, it does not matter (CEL's logical operators).
    assert_eq!(
        value("subject.claims.absent == 'x' || true", &claims),
        Ok(true)
    );
    assert_eq!(
        value("false && subject.claims.absent == 'x'", &claims),
        Ok(false)
    );
}

#[test]
fn an_error_names_what_is_missing_and_shows_no_value_of_a_claim() {
    let secret = "s3cret\nof a claim";
    let claims = json!({ "plan": secret, "list": [secret], "map": { secret: 1 }, "big": i64::MAX });
    for (text, reason) in [
        ("subject.claims.absent == 'x'", "there is no `absent`"),
        ("request.file.mime_type == 'x'", "there is no `mime_type`"),
        ("subject.claims.plan >= 17", "`string` and `int`"),
        (
            "subject.claims.plan.all(x, x == 'a')",
            "cannot be evaluated: ",
        ),
        (
            "int(subject.claims.plan) == 1",
            "`int` does not take this value",
        ),
        (
            "timestamp(subject.claims.plan) < request.time",
            "`timestamp` does not take this value",
        ),
        ("subject.claims.big + 1 > 0", "a number is too large"),
        ("subject.claims.list[7] == 'x'", "a list has no such entry"),
        (
            "1 / (size(subject.claims.list) - 1) == 1",
            "it divides by zero",
        ),
        (
            "subject.claims.list < subject.claims.map",
            "cannot be evaluated: ",
        ),
        (
            "subject.claims.list[subject.claims.plan] == 1",
            "cannot be evaluated: ",
        ),
        ("{1: 2}[subject.claims.list] == 1", "cannot be evaluated: "),
    ] {
        let found = value(text, &claims).unwrap_err();
        assert!(found.contains(reason), "{text}: {found}");
        assert!(
            !found.contains("s3cret") && !found.contains('\n'),
            "{text}: {found}"
        );
    }
}

#[test]
fn an_error_about_a_key_from_a_request_is_one_short_line() {
    let claims = json!({ "plan": format!("a\nb{}", "x".repeat(10_000)) });
    let reason = value("{'pro': 1}[subject.claims.plan] == 1", &claims).unwrap_err();
    assert!(reason.contains("there is no `a\\nbxxx"), "{reason}");
    assert!(reason.len() < 200 && !reason.contains('\n'), "{reason}");
}

/// A clock that cannot be read.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> jiff::Timestamp {
        panic!("the clock panics, as an evaluator might")
    }

    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

#[test]
fn an_evaluation_that_panics_denies() {
    let settings = json!({ "allow": "request.time > timestamp('2020-01-01T00:00:00Z')" });
    let settings: ExpressionSettings = serde_json::from_value(settings).unwrap();
    let policy = build(&settings, &TestPorts::default(), Arc::new(NoClock));
    let chain = Chain::new(vec![link("rule", policy)]);
    let evaluation = chain.evaluate(&request(), Pass::Issue).now_or_never();
    let Outcome::Denied { denial, .. } = evaluation.unwrap().outcome else {
        panic!("it does not deny");
    };
    assert_eq!(denial.code(), "rule_forbidden");
    assert!(denial.to_string().contains("panicked"), "{denial}");
}

#[test]
fn an_invalid_expression_is_rejected_with_its_position() {
    let nested = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    for (text, fault) in [
        ("", "the expression is empty"),
        ("subject.claims.plan ==", "line 1, column"),
        ("true &&\n  subject..id", "line 2, column"),
        ("subjects.id == 'x'", "unknown fact `subjects`"),
        ("subject.id == id", "unknown fact `id`"),
        ("[1].all(x, y == x)", "unknown fact `y`"),
        (
            "request.worksapce == 'x'",
            "`request` has no field `worksapce`",
        ),
        (
            "workspace['rolle'] == 'x'",
            "`workspace` has no field `rolle`",
        ),
        (
            "request['file'].mime == 'x'",
            "`request.file` has no field `mime`",
        ),
        (
            "request.workspace.id == 'x'",
            "`request.workspace` has no fields",
        ),
        ("Subject{id: 'x'}.id == 'x'", "unknown type `Subject`"),
        (
            "subject.claims.a.all(x, subject.claims.a.all(y, x == y))",
            "iterates over a list for each entry",
        ),
        ("subject.id.matchs('x')", "unknown function `matchs`"),
        (
            "false && length(subject.id) > 1",
            "unknown function `length`",
        ),
        ("[1].all(x, upper(x) == 'X')", "unknown function `upper`"),
        (&"true || ".repeat(1000), "longer than 4096 bytes"),
        (nested.as_str(), "nested deeper"),
        (&"!".repeat(200), "nested deeper"),
        (&vec!["1"; 1000].join("+"), "nested deeper"),
        (&format!("{}1", "true ? 1 : ".repeat(60)), "nested deeper"),
    ] {
        let found = Expression::parse(text).unwrap_err();
        assert!(found.contains(fault), "{text}: {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_parser_or_the_evaluation_panic(
        text in prop_oneof![
            "\\PC{0,120}",
            "[a-z0-9.()\\[\\]{}'\"=<>!&|?:,+*/% -]{0,200}",
            prop::collection::vec(prop::sample::select(vec![
                "subject", "workspace", "request", ".claims", ".id", ".all(", "x, ", ")", "(", "[", "]",
                "{", "}", " && ", " || ", "!", " in ", "==", "'a'", "1", "-", "?", ":", "has(", "size(",
                ".matches(", "timestamp(", "duration(", "9223372036854775807", "b'\\xff'", "\\u0000",
            ]), 0..40).prop_map(|parts| parts.concat()),
        ]
    ) {
        if let Ok(expression) = Expression::parse(&text) {
            let condition = Condition::new(expression, Arc::new(SystemClock::new()));
            let _ = condition.evaluate(&request(), &facts(&json!({ "a": [1, "b", null] })));
        }
    }
}

/// Whether a policy with this condition is asked, and why its condition has no value.
fn is_asked(when: &str, on_failure: OnFailure, mode: Mode) -> (bool, Option<String>) {
    let clock = Arc::new(SystemClock::new());
    let mut link = link("first", Arc::new(crate::helpers::Deny));
    link.when = Some(Condition::new(
        Expression::parse(when).unwrap(),
        clock.clone(),
    ));
    link.on_failure = on_failure;
    link.mode = mode;
    let mut trace = Trace::new(&*clock);
    let chain = Chain::new(vec![link]);
    let request = request();
    let input = chain.evaluate_and_trace(&request, Pass::Issue, &mut trace);
    let evaluation = input.now_or_never().expect("nothing waits");
    let tolerated = evaluation.tolerated.iter();
    let observed = tolerated
        .filter(|one| matches!(one.reason, Reason::Denial(_)))
        .count()
        == 1;
    let denied = matches!(evaluation.outcome, Outcome::Denied { .. });
    let step = trace.into_steps().pop().unwrap();
    (
        denied || observed,
        step.condition_error.map(|error| error.to_string()),
    )
}

#[test]
fn a_policy_is_skipped_only_if_its_condition_is_false() {
    for on_failure in [OnFailure::Deny, OnFailure::Allow] {
        for mode in [Mode::Enforce, Mode::Observe] {
            for (when, expected) in [
                ("true", true),
                ("request.purpose == 'avatar'", true),
                ("request.purpose == 'banner'", false),
                ("has(subject.id)", false),
            ] {
                assert_eq!(is_asked(when, on_failure, mode), (expected, None), "{when}");
            }
            for when in [
                "'no'",
                "null",
                "0",
                "subject.id == 'x'",
                "!workspace.role",
                "1 / 0 == 1",
            ] {
                let (asked, condition_error) = is_asked(when, on_failure, mode);
                assert!(asked && condition_error.is_some(), "{when}");
            }
        }
    }
}

#[test]
fn the_deepest_expression_fits_on_the_stack_of_a_worker() {
    let clauses = |count: usize| vec!["subject.id != 'x'"; count].join(" && ");
    let deepest = (1..200)
        .take_while(|count| Expression::parse(&clauses(*count)).is_ok())
        .last()
        .unwrap();
    assert!(deepest >= 30, "{deepest}");
    for text in [
        clauses(deepest),
        vec!["1"; 39].join("+") + " == 39",
        format!("{}true{}", "(".repeat(39), ")".repeat(39)),
        format!("{}true", "!".repeat(38)),
    ] {
        assert_eq!(value(&text, &json!({})), Ok(true), "{text}");
    }
}

#[test]
fn an_expression_lists_the_claims_that_it_reads() {
    let claims = json!({
        "plan": "pro", "org": { "name": "acme", "size": 7 }, "groups": ["a"], "other": 1,
    });
    let all = claims.clone();
    for (text, read) in [
        ("request.purpose == 'avatar'", json!({})),
        ("subject.id == 'user_1' && subject.session", json!({})),
        ("subject.claims.plan == 'pro'", json!({ "plan": "pro" })),
        ("has(subject.claims.plan)", json!({ "plan": "pro" })),
        (
            "subject.claims.org.name == 'acme'",
            json!({ "org": { "name": "acme" } }),
        ),
        (
            "subject.claims.org['name'] == 'acme'",
            json!({ "org": { "name": "acme" } }),
        ),
        (
            "subject.claims.groups.exists(group, group == subject.claims.plan)",
            json!({ "plan": "pro", "groups": ["a"] }),
        ),
        ("subject.claims['plan'] == 'pro'", json!({ "plan": "pro" })),
        (
            "has(subject.claims['org'].name) && subject['claims']['plan'] == 'pro'",
            json!({ "org": { "name": "acme" }, "plan": "pro" }),
        ),
        (
            "subject.claims[request.purpose] == 'x' && subject.claims['plan'] == 'pro'",
            all.clone(),
        ),
        ("subject['claims'] == {}", all.clone()),
        ("['x'].all(subject, subject == 'x')", json!({})),
        (
            "size(subject.claims) > 1 && subject.claims.plan == 'pro'",
            all.clone(),
        ),
        ("subject['claims'].plan == 'pro'", json!({ "plan": "pro" })),
    ] {
        let reads = Expression::parse(text).unwrap().claims();
        let read_claims = reads.of(claims.as_object().unwrap());
        assert_eq!(Value::from(read_claims), read, "{text}");
    }
}
