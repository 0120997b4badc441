//! Kinds of policy: which there are, and what the rest of the config learns about one.

use std::{collections::BTreeMap, sync::Arc};

use policies::{
    BuildContext, BuildError, ConfiguredPolicy, DenialClass, Fact, Findings, Policy, PolicyKind,
    PolicyName, PolicyRegistry, RateLimit, RateLimitSettings, Reads, Requirements, StoreUse,
    add_built_in_kinds,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    helpers::{Deny, StoppedClock, TestPorts, build, settings},
    scripted::store,
};

/// The registered kinds, each with whether its policies can fail.
#[derive(Default)]
struct Registry(BTreeMap<&'static str, bool>);

impl PolicyRegistry for Registry {
    fn add<K: PolicyKind>(&mut self) {
        assert_eq!(self.0.insert(K::NAME, K::CAN_FAIL), None);
    }
}

#[test]
fn there_are_eight_built_in_kinds_and_those_that_depend_on_others_can_fail() {
    let mut registry = Registry::default();
    add_built_in_kinds(&mut registry);
    let expected = [
        ("expression", false),
        ("quota", true),
        // It has an `on_failure` of its own.
        ("rate_limit", false),
        ("remote", true),
        ("signed_in", false),
        ("storage", true),
        ("upload_intent", false),
        ("workspace_member", true),
    ];
    assert_eq!(registry.0, BTreeMap::from(expected));
}

/// A kind with only the required items.
#[derive(Debug, Deserialize, JsonSchema)]
struct Plain {}

impl PolicyKind for Plain {
    const NAME: &'static str = "plain";

    fn describe(&self) -> String {
        "it denies".to_owned()
    }

    fn build(&self, _: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(Deny))
    }
}

#[test]
fn a_kind_may_read_all_claims_and_needs_nothing_else_unless_it_says_otherwise() {
    let required = PolicyKind::requirements(&Plain {});
    assert_eq!(required.claims, Reads::All);
    assert_eq!(required.denies_with, DenialClass::Forbidden);
    assert!(required.needs.is_empty() && required.accept.is_empty());
    assert!(required.store.is_none() && required.service.is_none());
    let mut findings = Findings::default();
    PolicyKind::check(&Plain {}, &mut findings);
    assert!(findings.faults.is_empty() && findings.warnings.is_empty());
    assert!(
        build(
            &Plain {},
            &TestPorts::default(),
            Arc::new(StoppedClock::default())
        )
        .counters()
        .is_none()
    );
}

/// A kind that says something about itself.
#[derive(Debug, Deserialize, JsonSchema)]
struct Talkative {}

impl PolicyKind for Talkative {
    const NAME: &'static str = "talkative";

    fn describe(&self) -> String {
        "it is talkative".to_owned()
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            provides: Some(Fact::Subject),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        findings.fault("key", "is faulty");
        findings.warning("other", "is odd");
    }

    fn build(&self, _: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Err(BuildError::Other("it cannot be built".into()))
    }
}

#[test]
fn settings_of_any_kind_say_what_their_kind_says() {
    let policy: Box<dyn ConfiguredPolicy> = Box::new(Talkative {});
    assert_eq!(policy.kind(), "talkative");
    assert_eq!(policy.describe(), "it is talkative");
    assert_eq!(policy.requirements().provides, Some(Fact::Subject));
    let mut findings = Findings::default();
    policy.check(&mut findings);
    assert_eq!(findings.faults, [("key", "is faulty".to_owned())]);
    assert_eq!(findings.warnings, [("other", "is odd".to_owned())]);
    let clock: Arc<dyn policies::Clock> = Arc::new(StoppedClock::default());
    let built = policy.build(BuildContext {
        name: &PolicyName::parse("policy").unwrap(),
        clock: &clock,
        ports: &TestPorts::default(),
        earlier: None,
    });
    assert!(matches!(built, Err(BuildError::Other(_))));
}

#[test]
fn a_policy_finds_its_predecessor_only_if_that_was_of_the_same_type() {
    let (name, ports) = (PolicyName::parse("policy").unwrap(), TestPorts::default());
    let clock: Arc<dyn policies::Clock> = Arc::new(StoppedClock::default());
    let context = |earlier| BuildContext {
        name: &name,
        clock: &clock,
        ports: &ports,
        earlier,
    };
    let limit: RateLimitSettings = settings("per = []\nlimit = 1\nperiod = '1s'");
    let limit = build(&limit, &ports, clock.clone());
    assert!(context(Some(limit)).earlier::<RateLimit>().is_some());
    assert!(
        context(Some(Arc::new(Deny)))
            .earlier::<RateLimit>()
            .is_none()
    );
    assert!(context(None).earlier::<RateLimit>().is_none());
}

#[test]
fn only_quotas_and_rate_limits_count_in_a_store_and_only_quotas_give_back() {
    for (store_use, can_release) in [
        (StoreUse::Quotas, Some(true)),
        (StoreUse::RateLimits, Some(false)),
        (StoreUse::Sessions, None),
        (StoreUse::Memberships, None),
    ] {
        let required = Requirements {
            store: Some((store("db"), store_use)),
            ..Requirements::default()
        };
        let counting = required.counter_store();
        assert_eq!(
            counting.as_ref().map(|counting| counting.can_release),
            can_release
        );
        assert!(counting.is_none_or(|counting| counting.store == store("db")));
    }
    assert_eq!(Requirements::default().counter_store(), None);
}

#[test]
fn each_fact_is_provided_by_one_kind() {
    assert_eq!(Fact::Subject.provided_by(), "signed_in");
    assert_eq!(Fact::Membership.provided_by(), "workspace_member");
}
