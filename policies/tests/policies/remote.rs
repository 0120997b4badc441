//! `remote`: another service decides.

use std::sync::{Arc, Mutex};

use futures_util::future::ready;
use policies::{
    BoxFuture, Decider, Facts, Fault, Interval, Pass, Policy, PolicyKind as _, Protocol, Question,
    Reads, RemoteSettings,
};
use serde_json::{Value, json};

use crate::helpers::{
    StoppedClock, TestPorts, build, decide, denial_code, member_of, request_from, settings, user,
};

/// A service that records the questions and always gives the same answer.
#[derive(Clone)]
struct Service {
    allows: Option<bool>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Decider for Service {
    fn allows<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, bool> {
        let question = serde_json::to_value(question).unwrap();
        self.asked.lock().unwrap().push(question);
        let answer = self
            .allows
            .ok_or_else(|| Fault::Service("it is down".into()));
        Box::pin(ready(answer))
    }
}

/// A policy that asks this service.
fn policy(allows: Option<bool>) -> (Arc<dyn Policy>, Service) {
    let service = Service {
        allows,
        asked: Arc::default(),
    };
    let ports = TestPorts {
        decider: Some(Arc::new(service.clone())),
        ..TestPorts::default()
    };
    let settings: RemoteSettings = settings("url = 'http://127.0.0.1/decide'");
    let clock = Arc::new(StoppedClock::at("2026-03-10T12:00:00Z"));
    (build(&settings, &ports, clock), service)
}

#[test]
fn the_service_allows_or_denies() {
    for (allows, code) in [(true, None), (false, Some("rule_forbidden"))] {
        let (policy, _) = policy(Some(allows));
        let decided = decide(&*policy, &request_from(1), &Facts::default(), Pass::Issue);
        assert_eq!(denial_code(&decided.unwrap().verdict), code);
    }
}

#[test]
fn if_the_service_gives_no_answer_the_policy_faults() {
    let (policy, _) = policy(None);
    let decided = decide(&*policy, &request_from(1), &Facts::default(), Pass::Issue);
    assert!(matches!(decided, Err(Fault::Service(_))));
}

#[test]
fn the_service_receives_the_facts_that_are_known() {
    let (policy, service) = policy(Some(true));
    let subject = user("user_1", &json!({ "plan": "pro" }));
    let facts = Facts::new(Some(subject), Some(member_of("ws_1", Some("owner"))));
    let _ = decide(&*policy, &request_from(1), &facts, Pass::Issue);
    let expected = json!({
        "request": {
            "route": "/api/imgwire/upload-token",
            "ip": "0.0.0.1",
            "time": "2026-03-10T12:00:00Z",
        },
        "subject": {
            "id": "user_1", "identity": "app", "session": false, "claims": { "plan": "pro" },
        },
        "workspace": { "id": "ws_1", "role": "owner" },
    });
    assert_eq!(*service.asked.lock().unwrap(), [expected]);
}

#[test]
fn the_service_is_asked_by_post_within_two_seconds_by_default() {
    let default: RemoteSettings = settings("url = 'https://rules.example.com/'");
    assert_eq!(default.timeout, Interval::from_secs(2));
    assert_eq!(default.protocol, Protocol::Plain);
    let opa: RemoteSettings = settings("url = 'https://rules.example.com/'\nprotocol = 'opa'");
    assert_eq!(opa.protocol, Protocol::Opa);
}

#[test]
fn a_remote_policy_reads_all_claims_and_calls_its_service() {
    let settings: RemoteSettings = settings(
        "url = 'http://rules.example.com/decide'\ntoken = { env = 'TOKEN' }\ninsecure_http = true",
    );
    let required = settings.requirements();
    assert_eq!(required.claims, Reads::All);
    let service = required.service.unwrap();
    assert_eq!(service.endpoint, settings.url);
    assert!(service.token.is_some() && service.insecure_http && !service.is_template);
    assert!(
        settings
            .describe()
            .contains("http://rules.example.com/decide")
    );
}

#[test]
fn the_url_of_a_service_is_not_shown_in_debug_output() {
    let settings: RemoteSettings = settings("url = 'http://user:secret@rules.example.com/'");
    let text = format!("{settings:?}");
    assert!(
        text.contains("Endpoint") && !text.contains("secret"),
        "{text}"
    );
}
