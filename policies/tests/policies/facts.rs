//! The facts of a request: expressions, remote policies and remembered answers see the same ones.

use std::sync::Arc;

use policies::{
    Clock, Condition, DeclaredFile, Expression, Fact, Facts, Question, RoutePath, SystemClock,
    UploadRequest, WorkspaceId,
};
use serde_json::{Value, json};

use crate::{
    expression::{facts, request},
    helpers::{StoppedClock, request_from},
};

/// The paths of the leaves of a JSON document.
fn paths(document: &Value, path: &str, found: &mut Vec<String>) {
    match document.as_object() {
        Some(members) => {
            for (name, member) in members {
                paths(
                    member,
                    format!("{path}.{name}").trim_start_matches('.'),
                    found,
                );
            }
        }
        None => found.push(path.to_owned()),
    }
}

#[test]
fn expressions_and_remote_policies_see_the_same_facts() {
    let clock = SystemClock::new();
    let known = facts(&json!({ "plan": "pro" }));
    let mut complete = request();
    complete.workspace = Some(WorkspaceId::parse("WS_1").unwrap());
    complete.file.as_mut().unwrap().mime_type = Some("image/png".to_owned());
    let question = |request, facts| {
        serde_json::to_value(Question {
            request,
            facts,
            clock: &clock,
        })
        .unwrap()
    };
    let mut all = Vec::new();
    paths(&question(&complete, &known), "", &mut all);
    let documented = [
        "request.file.mime_type",
        "request.file.name",
        "request.file.size",
        "request.ip",
        "request.purpose",
        "request.route",
        "request.time",
        "request.workspace",
        "subject.claims.plan",
        "subject.id",
        "subject.identity",
        "subject.session",
        "workspace.id",
        "workspace.role",
    ];
    all.sort();
    assert_eq!(all, documented);

    let mut absent_file = request();
    absent_file.file = None;
    let mut empty_file = request();
    empty_file.file = Some(DeclaredFile::default());
    let nobody = Facts::default();
    for (request, known) in [
        (&complete, &known),
        (&complete, &nobody),
        (&request(), &known),
        (&absent_file, &known),
        (&empty_file, &nobody),
    ] {
        let document = question(request, known);
        let parents = ["subject.claims", "request.file"].map(str::to_owned);
        for path in all.iter().chain(&parents) {
            let pointer = format!("/{}", path.replace('.', "/"));
            if path == "subject.claims.plan" && known.subject.is_none() {
                continue;
            }
            let text = format!("has({path})");
            let has = Condition::new(Expression::parse(&text).unwrap(), Arc::new(clock));
            let told = document.pointer(&pointer).is_some();
            assert_eq!(has.evaluate(request, known), Ok(told), "{text}: {document}");
        }
    }
}

#[test]
fn a_cached_answer_is_for_the_same_facts_at_any_time() {
    let clock = StoppedClock::default();
    let known = facts(&json!({ "plan": "pro" }));
    let identity = |request: &UploadRequest, facts: &Facts, clock: &dyn Clock| {
        let question = Question {
            request,
            facts,
            clock,
        };
        question.cache_key().unwrap()
    };
    let first = identity(&request(), &known, &clock);
    assert_eq!(first, identity(&request(), &known, &SystemClock::new()));
    let changes: [fn(&mut UploadRequest); 8] = [
        |request| request.workspace = Some(WorkspaceId::parse("ws_1").unwrap()),
        |request| request.purpose = None,
        |request| request.route = RoutePath::parse("/other").unwrap(),
        |request| request.ip = [192, 0, 2, 9].into(),
        |request| request.file = None,
        |request| request.file = Some(DeclaredFile::default()),
        |request| {
            request.file.as_mut().unwrap().name = Some("me.png\",\"size\":\"48213".to_owned())
        },
        |request| request.file.as_mut().unwrap().mime_type = Some(String::new()),
    ];
    let changed = changes.map(|change| {
        let mut request = request();
        change(&mut request);
        identity(&request, &known, &clock)
    });
    let known = |session, role: Option<&str>, claims: &Value| {
        let mut facts = facts(claims);
        Arc::make_mut(facts.subject.as_mut().unwrap()).session = session;
        facts.membership.as_mut().unwrap().role = role.map(str::to_owned);
        facts
    };
    let others = [
        known(true, Some("owner"), &json!({ "plan": "pro" })),
        known(false, None, &json!({ "plan": "pro" })),
        known(false, Some(""), &json!({ "plan": "pro" })),
        known(false, Some("owner"), &json!({ "plan": "pro", "a": null })),
        known(false, Some("owner"), &json!({ "plan": ["pro"] })),
        Facts::default(),
    ];
    let others = others.map(|known| identity(&request(), &known, &clock));
    let mut all: Vec<_> = [first].into_iter().chain(changed).chain(others).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "two questions are taken for the same one");
}

#[test]
fn facts_that_no_policy_established_are_missing() {
    let value = |text| {
        let expression = Expression::parse(text).unwrap();
        let condition = Condition::new(expression, Arc::new(SystemClock::new()));
        let value = condition.evaluate(&request_from(1), &Facts::default());
        value.map_err(|error| error.to_string())
    };
    for text in [
        "!has(subject.id) && !has(workspace.id) && !has(request.file)",
        "!has(subject.claims) && !has(workspace.role) && !has(request.workspace)",
        "!has(request.file.name) && !has(request.file.mime_type) && !has(request.file.size)",
    ] {
        assert_eq!(value(text), Ok(true), "{text}");
    }
    for (text, missing) in [
        ("request.file.size < 1000", "file"),
        ("size(request.file) == 0", "file"),
        ("workspace.role == 'x'", "role"),
        // A user who is not signed in may be suspended.
        ("!has(subject.claims.suspended)", "claims"),
        ("size(subject.claims) == 0", "claims"),
    ] {
        let reason = value(text).unwrap_err();
        assert!(
            reason.ends_with(&format!("there is no `{missing}`")),
            "{text}: {reason}"
        );
    }
}

#[test]
fn an_expression_says_which_facts_of_policies_it_reads() {
    for (text, expected) in [
        ("request.purpose", &[][..]),
        (
            "subject.id + workspace.id",
            &[Fact::Subject, Fact::Membership],
        ),
        ("has(workspace.role)", &[Fact::Membership]),
        ("['x'].all(workspace, workspace == 'x')", &[]),
    ] {
        let facts: Vec<_> = Expression::parse(text).unwrap().facts().collect();
        assert_eq!(facts, expected, "{text}");
    }
}
