//! `signed_in`: an accepted identity judges the credential of the request.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::ready;
use policies::{
    AcceptedIdentities, BoxFuture, Credentials, Decision, Denial, DenialClass, Fact, Facts, Fault,
    IdentityName, NewFact, Pass, PolicyKind as _, Presented, Reads, SignedInSettings,
    UploadRequest, Verdict,
};
use serde_json::json;

use crate::{
    helpers::{
        StoppedClock, TestPorts, build, decide, denial_code, faults_of, request_from, settings,
        user,
    },
    scripted::store_is_down,
};

/// Credentials that any identity judges in the same way. They record which identities they were judged by.
struct Judged {
    judge: fn() -> Result<Presented, Fault>,
    accepted: Arc<Mutex<Option<AcceptedIdentities>>>,
}

impl Credentials for Judged {
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
        *self.accepted.lock().unwrap() = Some(accept.clone());
        Box::pin(ready((self.judge)()))
    }
}

/// The decision on such credentials, and the identities that judged them.
fn decision(
    judge: fn() -> Result<Presented, Fault>,
) -> (Result<Decision, Fault>, AcceptedIdentities) {
    let settings: SignedInSettings = settings("accept = ['app', 'partner']");
    let clock = Arc::new(StoppedClock::default());
    let policy = build(&settings, &TestPorts::default(), clock);
    let accepted = Arc::default();
    let request = UploadRequest {
        credentials: Box::new(Judged {
            judge,
            accepted: Arc::clone(&accepted),
        }),
        ..request_from(1)
    };
    let decision = decide(&*policy, &request, &Facts::default(), Pass::Issue);
    let accepted = accepted.lock().unwrap().clone();
    (decision, accepted.expect("the credentials were judged"))
}

#[test]
fn a_valid_credential_establishes_the_user() {
    let (decision, _) = decision(|| Ok(Presented::Subject(user("user_1", &json!({})))));
    let decision = decision.unwrap();
    assert!(matches!(decision.verdict, Verdict::Allow));
    let Some(NewFact::Subject(subject)) = decision.new_fact else {
        panic!("the policy establishes the user");
    };
    assert_eq!(subject.id.as_str(), "user_1");
}

#[test]
fn a_request_without_a_valid_credential_is_denied() {
    let (missing, _) = decision(|| Ok(Presented::Nothing));
    let (expired, _) = decision(|| {
        Ok(Presented::Refused(Denial::CredentialsExpired(
            Duration::from_secs(90),
        )))
    });
    for (decision, code) in [(missing, "not_signed_in"), (expired, "credentials_expired")] {
        let decision = decision.unwrap();
        assert_eq!(denial_code(&decision.verdict), Some(code));
        assert!(decision.new_fact.is_none());
    }
}

#[test]
fn an_identity_that_fails_is_a_fault() {
    let (decision, _) = decision(|| Err(store_is_down()));
    assert!(decision.is_err());
}

#[test]
fn the_accepted_identities_judge_in_the_written_order() {
    let (_, accepted) = decision(|| Ok(Presented::Nothing));
    assert_eq!(accepted.first().map(IdentityName::as_str), Some("app"));
    assert_eq!(accepted.positions(), [0, 1]);
}

#[test]
fn at_least_one_identity_is_accepted() {
    let none: SignedInSettings = settings("accept = []");
    assert_eq!(faults_of(&none)[0].0, "accept");
    let one: SignedInSettings = settings("accept = ['app']");
    assert!(faults_of(&one).is_empty());
}

#[test]
fn a_signed_in_user_is_a_fact_for_later_policies_and_its_absence_is_not_a_prohibition() {
    let settings: SignedInSettings = settings("accept = ['app', 'partner']");
    let required = settings.requirements();
    assert_eq!(required.denies_with, DenialClass::Unauthenticated);
    assert_eq!(required.accept, settings.accept);
    assert_eq!(required.provides, Some(Fact::Subject));
    assert_eq!(required.claims, Reads::default());
    let text = settings.describe();
    assert!(text.contains("app") && text.contains("partner"), "{text}");
}
