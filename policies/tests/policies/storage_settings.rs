//! The settings of `storage`: what they need, how `check` shows them, and which of them are wrong.

use policies::{DenialClass, Fact, Findings, PolicyKind, Reads, StorageSettings, StoreUse};
use serde_json::json;

use crate::{
    helpers::{faults_of, settings},
    scripted::store,
};

#[test]
fn storage_needs_the_facts_that_it_counts_by_and_the_claims_of_its_limits() {
    let read = |rest: &str| settings::<StorageSettings>(&format!("store = 'db'\n{rest}"));
    let fixed = read("per = ['workspace']\nmax_bytes = '5GB'").requirements();
    assert_eq!(fixed.needs, [Fact::Membership]);
    assert_eq!(fixed.claims, Reads::default());
    assert_eq!(fixed.denies_with, DenialClass::Limited);
    assert_eq!(fixed.store, Some((store("db"), StoreUse::Uploads)));
    assert_eq!(fixed.counter_store(), None);
    assert!(
        read("per = []\nmax_images = 1")
            .requirements()
            .needs
            .is_empty()
    );

    let by_claims = read(
        "per = ['workspace']\n\
         max_bytes = { claim = 'plan', values = {}, default = 1 }\n\
         max_images = { claim = 'seats', values = {}, default = 1 }",
    );
    let required = by_claims.requirements();
    assert_eq!(required.needs, [Fact::Subject, Fact::Membership]);
    let claims = json!({ "plan": "pro", "seats": 1, "other": 1 });
    let read = required.claims.of(claims.as_object().unwrap());
    assert_eq!(json!(read), json!({ "plan": "pro", "seats": 1 }));
}

#[test]
fn a_description_names_the_limits_what_they_count_by_and_the_store() {
    let describe =
        |rest: &str| settings::<StorageSettings>(&format!("store = 'db'\n{rest}")).describe();
    assert_eq!(
        describe("per = ['workspace']\nmax_bytes = '5GB'\nmax_images = 10000"),
        "at most 5GB, 10000 images and 20 open uploads per workspace, counted in db"
    );
    assert_eq!(
        describe("per = ['user', 'workspace']\nmax_bytes = 1500\nmax_open = 1"),
        "at most 1500B and 1 open uploads per user and workspace, counted in db"
    );
    let by_claim = "{ claim = 'plan', values = {}, default = 1 }";
    assert_eq!(
        describe(&format!(
            "per = []\nmax_bytes = {by_claim}\nmax_images = {by_claim}"
        )),
        "at most the size for the claim plan, the number of images for the claim plan and 20 open uploads for all \
         together, counted in db"
    );
}

#[test]
fn storage_without_a_limit_is_a_fault_and_a_limit_of_nothing_is_a_warning() {
    let read = |rest: &str| settings::<StorageSettings>(&format!("store = 'db'\nper = []\n{rest}"));
    let faults = faults_of(&read("max_open = 3"));
    assert_eq!(
        faults,
        [(
            "",
            "limits nothing; add `max_bytes` or `max_images`".to_owned()
        )]
    );
    let warnings = |rest: &str| {
        let mut findings = Findings::default();
        PolicyKind::check(&read(rest), &mut findings);
        assert!(findings.faults.is_empty());
        let keys = findings.warnings.into_iter().map(|(key, _)| key);
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        warnings("max_bytes = '0B'\nmax_images = 0"),
        ["max_bytes", "max_images"]
    );
    let free = "{ claim = 'plan', values = { free = 0 }, default = 1 }";
    assert!(warnings(&format!("max_bytes = {free}\nmax_images = 1")).is_empty());
}
