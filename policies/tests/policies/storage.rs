//! `storage`: what is held now, which the store counts when it records an upload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::future::ready;
use policies::{
    BoxFuture, Chain, Counter, Decision, DeclaredFile, Denial, DenialClass, Facts, Fault, Mode,
    Outcome, Pass, Policy, Reason, StorageCharge, StorageFull, StorageLimits, StorageSettings,
    StorageStore, StorageUnit, StorageUsed, SubjectId, UploadRequest, Verdict, WorkspaceId,
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    helpers::{
        StoppedClock, TestPorts, build, decide, denial_code, finish, link, member_of, request_from,
        settings, user,
    },
    scripted::store_is_down,
};

/// What is used, by the text of the key. `None` if the store is down.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<HashMap<String, StorageUsed>>>>);

impl StorageStore for Held {
    fn storage_used(&self, counter: Counter) -> BoxFuture<'_, StorageUsed> {
        assert_eq!(counter.policy.as_str(), "policy");
        let held = self.0.lock().unwrap();
        let used = held.as_ref().ok_or_else(store_is_down);
        let used = used.map(|held| held.get(&counter.key).copied().unwrap_or_default());
        Box::pin(ready(used))
    }
}

/// A policy, and what its store holds.
struct Tested {
    policy: Arc<dyn Policy>,
    held: Held,
}

fn storage(table: &str) -> Tested {
    let settings: StorageSettings = settings(&format!("store = 'db'\n{table}"));
    let held = Held(Arc::new(Mutex::new(Some(HashMap::new()))));
    let ports = TestPorts {
        storage: Some(Arc::new(held.clone())),
        ..TestPorts::default()
    };
    Tested {
        policy: build(&settings, &ports, Arc::new(StoppedClock::default())),
        held,
    }
}

/// 100 bytes, 3 images and 2 open uploads for each workspace.
fn small() -> Tested {
    storage("per = ['workspace']\nmax_bytes = 100\nmax_images = 3\nmax_open = 2")
}

fn limits() -> StorageLimits {
    StorageLimits {
        max_bytes: Some(100),
        max_images: Some(3),
        max_open: 2,
    }
}

fn used(bytes: u64, images: u64, open: u64) -> StorageUsed {
    StorageUsed {
        bytes,
        images,
        open,
    }
}

fn request(size: Option<u64>) -> UploadRequest {
    UploadRequest {
        file: Some(DeclaredFile {
            size,
            ..DeclaredFile::default()
        }),
        ..request_from(1)
    }
}

fn facts() -> Facts {
    let subject = user("user_1", &json!({ "plan": "pro" }));
    Facts::new(Some(subject), Some(member_of("ws_1", None)))
}

impl Tested {
    fn hold(&self, key: &str, used: StorageUsed) {
        let mut held = self.held.0.lock().unwrap();
        held.as_mut().unwrap().insert(key.to_owned(), used);
    }

    fn break_store(&self) {
        *self.held.0.lock().unwrap() = None;
    }

    fn decide(&self, pass: Pass, size: Option<u64>) -> Result<Decision, Fault> {
        decide(&*self.policy, &request(size), &facts(), pass)
    }
}

#[test]
fn an_upload_takes_its_part_only_when_it_is_recorded() {
    let storage = small();
    // A store that is down cannot count either, so its fault comes from there.
    storage.break_store();
    let decision = storage.decide(Pass::Issue, Some(67)).unwrap();
    assert!(matches!(decision.verdict, Verdict::Allow));
    assert!(decision.limit.is_none() && decision.storage.is_none());
    let charge = decision.charge.unwrap();
    assert_eq!(charge.counter.key, "ws_1");
    assert_eq!(charge.counter.policy.as_str(), "policy");
    assert_eq!(charge.limits, limits());
    assert_eq!(charge.key, "workspace=ws_1");
    assert_eq!((charge.note, charge.is_enforced), (None, true));
}

#[test]
fn an_upload_that_does_not_fit_is_denied_before_later_policies() {
    let storage = small();
    storage.hold("ws_1", used(40, 2, 1));
    for (size, code) in [(60, None), (61, Some("storage_full"))] {
        let decision = storage.decide(Pass::Issue, Some(size)).unwrap();
        assert_eq!(denial_code(&decision.verdict), code, "{size} bytes");
        // A policy that only observes counts it nevertheless.
        assert!(decision.charge.is_some());
    }
}

#[test]
fn an_upload_that_is_already_held_is_not_denied_because_of_itself() {
    let storage = small();
    storage.hold("ws_1", used(100, 3, 2));
    let decision = storage.decide(Pass::Resume, Some(67)).unwrap();
    assert!(matches!(decision.verdict, Verdict::Allow) && decision.charge.is_some());
}

#[test]
fn a_repeated_upload_takes_nothing() {
    let storage = small();
    storage.break_store();
    let decision = storage.decide(Pass::Repeat, Some(67)).unwrap();
    assert!(matches!(decision.verdict, Verdict::Allow));
    assert!(decision.charge.is_none() && decision.storage.is_none());
}

#[test]
fn an_upload_of_an_undeclared_size_is_denied() {
    let storage = small();
    let decision = storage.decide(Pass::Issue, None).unwrap();
    assert_eq!(denial_code(&decision.verdict), Some("file_required"));
    let without_file = decide(&*storage.policy, &request_from(1), &facts(), Pass::Issue).unwrap();
    assert_eq!(denial_code(&without_file.verdict), Some("file_required"));
}

#[test]
fn a_preview_denies_what_would_not_fit_and_says_what_is_full() {
    use StorageUnit::{Bytes, Images, Open};
    let storage = small();
    for (held, size, full) in [
        (used(0, 0, 0), 100, None),
        (used(40, 2, 1), 60, None),
        (used(40, 2, 1), 61, Some((Bytes, 40, 100))),
        (used(100, 1, 0), 1, Some((Bytes, 100, 100))),
        (used(40, 3, 0), 1, Some((Images, 3, 3))),
        (used(40, 2, 2), 1, Some((Open, 2, 2))),
        // A lowered limit, or a file that was larger than declared.
        (used(500, 9, 0), 1, Some((Images, 9, 3))),
    ] {
        storage.hold("ws_1", held);
        let decision = storage.decide(Pass::Preview, Some(size)).unwrap();
        let state = decision.storage.unwrap();
        assert_eq!(state.policy.as_str(), "policy");
        assert_eq!((state.limits, state.used), (limits(), held));
        assert!(decision.charge.is_none());
        let found = match decision.verdict {
            Verdict::Deny(Denial::StorageFull(full)) => {
                let asked = (full.unit == Bytes).then_some(size);
                assert_eq!((&*full.key, full.asked), ("workspace=ws_1", asked));
                Some((full.unit, full.used, full.limit))
            }
            Verdict::Allow => None,
            _ => panic!("{held:?}"),
        };
        assert_eq!(found, full, "{held:?} {size}");
    }
}

#[test]
fn a_preview_of_an_undescribed_file_denies_only_what_is_full_for_every_file() {
    let storage = small();
    for (held, code) in [
        (used(99, 2, 1), "file_required"),
        (used(100, 2, 1), "storage_full"),
        (used(0, 3, 0), "storage_full"),
        (used(0, 2, 2), "storage_full"),
    ] {
        storage.hold("ws_1", held);
        let decision = storage.decide(Pass::Preview, None).unwrap();
        assert_eq!(denial_code(&decision.verdict), Some(code), "{held:?}");
        assert_eq!(decision.storage.unwrap().used, held);
        if let Verdict::Deny(Denial::StorageFull(full)) = decision.verdict {
            assert_eq!(full.asked, None);
        }
    }
}

#[test]
fn the_reason_of_a_denial_names_the_counter_what_is_used_and_the_file() {
    let storage = small();
    storage.hold("ws_1", used(90, 1, 1));
    let decision = storage.decide(Pass::Preview, Some(11)).unwrap();
    let Verdict::Deny(denial) = decision.verdict else {
        panic!("it does not fit");
    };
    let reason = "the storage is full: workspace=ws_1 uses 90 of 100 bytes, and the file has 11";
    assert_eq!(denial.to_string(), reason);
    assert_eq!(
        (denial.code(), denial.class()),
        ("storage_full", DenialClass::Limited)
    );
    assert_eq!((denial.retry_after(), denial.reached()), (None, None));
}

#[test]
fn a_claim_chooses_each_limit() {
    let storage = storage(
        "per = ['user']\n\
         max_bytes = { claim = 'plan', values = { pro = '5GB', free = 0 }, default = '1MB' }\n\
         max_images = { claim = '/o/seats', values = { 7 = 700 }, default = 10 }",
    );
    for (claims, bytes, images, note) in [
        (
            json!({ "plan": "pro", "o": { "seats": 7 } }),
            5_000_000_000,
            700,
            None,
        ),
        (json!({ "plan": "free", "o": { "seats": 7 } }), 0, 700, None),
        (
            json!({ "plan": "team", "o": { "seats": 7 } }),
            1_000_000,
            700,
            Some("`values` has no limit for the token's `plan`, so the default limit applies"),
        ),
        (
            json!({ "plan": "pro" }),
            5_000_000_000,
            10,
            Some("the token has no `/o/seats`, so the default limit applies"),
        ),
    ] {
        let facts = Facts::new(Some(user("user_1", &claims)), None);
        let decision = decide(&*storage.policy, &request(Some(1)), &facts, Pass::Issue).unwrap();
        let charge = decision.charge.unwrap();
        let expected = StorageLimits {
            max_bytes: Some(bytes),
            max_images: Some(images),
            max_open: 20,
        };
        assert_eq!(charge.limits, expected, "{claims}");
        assert_eq!(charge.note.as_deref(), note, "{claims}");
        let preview = decide(&*storage.policy, &request(Some(1)), &facts, Pass::Preview).unwrap();
        assert_eq!(preview.note.as_deref(), note, "{claims}");
    }
}

#[test]
fn a_policy_that_observes_counts_and_enforces_nothing() {
    let storage = small();
    storage.hold("ws_1", used(100, 3, 2));
    let observing = policies::Link {
        mode: Mode::Observe,
        ..link("policy", storage.policy.clone())
    };
    let chain = Chain::new(vec![observing]);
    for (size, tolerated) in [(Some(5), &[][..]), (None, &["file_required"])] {
        let evaluation = finish(chain.evaluate(&request(size), Pass::Issue));
        let Outcome::Allowed(permit) = evaluation.outcome else {
            panic!("it only observes");
        };
        let enforced: Vec<_> = permit.charges().iter().map(|it| it.is_enforced).collect();
        assert_eq!(enforced, [false], "{size:?}");
        let codes = evaluation.tolerated.iter().map(|it| match &it.reason {
            Reason::Denial(denial) => denial.code(),
            Reason::Fault(_) => "fault",
        });
        assert_eq!(codes.collect::<Vec<_>>(), tolerated, "{size:?}");
        finish(permit.not_issued());
    }
    let preview = finish(chain.evaluate(&request(Some(5)), Pass::Preview));
    assert!(matches!(preview.outcome, Outcome::Allowed(_)));
    assert!(preview.storage.is_empty());
}

#[test]
fn if_the_store_fails_only_what_reads_it_faults() {
    let storage = small();
    storage.break_store();
    let preview = storage.decide(Pass::Preview, Some(5));
    assert!(matches!(preview, Err(Fault::Store { .. })));
    let counters = storage.policy.storage().unwrap();
    assert!(finish(counters.used("ws_1")).is_err());
}

#[test]
fn an_operator_sees_what_is_counted_under_a_key() {
    let storage = small();
    storage.hold("ws_1", used(90, 1, 1));
    let counters = storage.policy.storage().unwrap();
    assert_eq!(finish(counters.used("ws_1")).unwrap(), used(90, 1, 1));
    assert_eq!(finish(counters.used("ws_2")).unwrap(), used(0, 0, 0));
    assert!(storage.policy.counters().is_none());
}

#[test]
fn a_limit_of_bytes_is_a_size_or_a_number_and_only_records_are_counted_by() {
    let read = |rest: &str| {
        let table = format!("store = 'db'\n{rest}");
        toml::from_str::<StorageSettings>(&table).map_err(|error| error.to_string())
    };
    for (good, bytes) in [
        ("'5GB'", 5_000_000_000),
        ("'5 GiB'", 5 << 30),
        ("'1TB'", 1_000_000_000_000),
        ("1500", 1500),
        ("'0B'", 0),
    ] {
        let storage = storage(&format!("per = []\nmax_bytes = {good}"));
        let decision = storage.decide(Pass::Issue, Some(1)).unwrap();
        assert_eq!(decision.charge.unwrap().limits.max_bytes, Some(bytes));
    }
    for (bad, says) in [
        ("per = []\nmax_bytes = -1", "negative"),
        ("per = []\nmax_bytes = '5 parsecs'", "not a size"),
        ("per = []\nmax_bytes = true", "a size"),
        ("per = []\nmax_images = '5'", "a number"),
        ("per = []\nmax_images = -1", "negative"),
        (
            "per = []\nmax_bytes = { claim = 'plan', values = { pro = 'much' }, default = 1 }",
            "not a size",
        ),
        (
            "per = []\nmax_bytes = { claim = 'plan', values = { pro = -1 }, default = 1 }",
            "negative",
        ),
        (
            "per = []\nmax_bytes = { claim = 'plan', values = {} }",
            "default",
        ),
        ("per = []\nmax_bytes = 1\nmax_open = 0", "nonzero"),
        ("per = ['ip']\nmax_bytes = 1", "unknown variant"),
        ("per = ['purpose']\nmax_bytes = 1", "unknown variant"),
        ("per = ['route']\nmax_bytes = 1", "unknown variant"),
        ("per = ['user', 'user']\nmax_bytes = 1", "twice"),
        ("per = []\nmax_bytes = 1\nlimit = 1", "unknown field"),
    ] {
        let error = read(bad).unwrap_err();
        assert!(error.contains(says), "{bad}: {error}");
    }
}

proptest! {
    /// The counter of a record is the one that its upload was counted in.
    #[test]
    fn a_record_leads_to_the_counter_of_its_upload(
        subject in "[a-c%/:]{1,6}",
        workspace in proptest::option::of("[a-c%/:]{1,6}"),
        per in proptest::sample::select(vec![
            "[]", "['user']", "['workspace']", "['user', 'workspace']", "['workspace', 'user']",
        ]),
    ) {
        let storage = storage(&format!("per = {per}\nmax_images = 1"));
        let membership = workspace.as_deref().map(|id| member_of(id, None));
        let facts = Facts::new(Some(user(&subject, &json!({}))), membership);
        let decision = decide(&*storage.policy, &request(Some(1)), &facts, Pass::Issue).unwrap();
        let subject = SubjectId::parse(&subject).unwrap();
        let workspace = workspace.map(|id| WorkspaceId::parse(&id).unwrap());
        let counter = storage.policy.storage_counter(&subject, workspace.as_ref());
        prop_assert_eq!(counter.unwrap(), decision.charge.unwrap().counter);
    }

    /// An upload fits exactly if no limit is exceeded once it is counted.
    #[test]
    fn an_upload_fits_if_nothing_is_exceeded_with_it(
        max_bytes in proptest::option::of(0_u64..6),
        max_images in proptest::option::of(0_u64..6),
        max_open in 1_u64..6,
        bytes in 0_u64..6,
        images in 0_u64..6,
        open in 0_u64..6,
        size in prop_oneof![0_u64..6, Just(u64::MAX)],
    ) {
        let limits = StorageLimits { max_bytes, max_images, max_open };
        let fits = open < max_open
            && max_images.is_none_or(|most| images < most)
            && max_bytes.is_none_or(|most| u128::from(bytes) + u128::from(size) <= u128::from(most));
        let charge = StorageCharge {
            counter: small().policy.storage_counter(&SubjectId::parse("a").unwrap(), None).unwrap(),
            limits,
            key: "all".to_owned(),
            note: None,
            is_enforced: true,
        };
        let full: Option<StorageFull> = charge.check(used(bytes, images, open), size);
        prop_assert_eq!(full.is_none(), fits);
    }
}
