//! Limits of the storage that records hold: one suite, with one line for each store.

use std::sync::Arc;

use futures_util::future::join_all;
use policies::{StorageCharge, StorageLimits, StorageUnit, StorageUsed};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{Begun, Intent, RecordStore, Replay},
    postgres::Postgres,
    quota_stores::counter,
    record_stores::{at, begin, complete, delete, intent, new_image, origin, record, records},
};

suite! {
    [
        concurrent_uploads_never_exceed_a_limit,
        an_upload_that_does_not_fit_leaves_nothing,
        a_repeated_upload_takes_no_storage,
        a_limit_that_is_not_enforced_is_counted_and_reported,
        a_missing_intent_is_counted_even_if_it_does_not_fit,
        enormous_sizes_are_counted_and_given_back,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

pub(crate) const UNLIMITED: StorageLimits = StorageLimits {
    max_bytes: None,
    max_images: None,
    max_open: 1_000_000,
};

pub(crate) fn charge(policy: &str, key: &str, limits: StorageLimits) -> StorageCharge {
    StorageCharge {
        counter: counter(policy, key),
        limits,
        key: format!("user={key}"),
        note: None,
        is_enforced: true,
    }
}

/// An upload of a file with this size.
pub(crate) fn charged(size: u64, charges: Vec<StorageCharge>) -> Intent {
    let mut origin = origin("alice", None);
    origin.declared.size = Some(size);
    Intent {
        charges: charges.into(),
        ..intent(origin)
    }
}

pub(crate) fn of_alice(size: u64) -> Arc<Intent> {
    Arc::new(charged(size, vec![charge("space", "alice", UNLIMITED)]))
}

pub(crate) const fn used(bytes: u64, images: u64, open: u64) -> StorageUsed {
    StorageUsed {
        bytes,
        images,
        open,
    }
}

pub(crate) async fn held(store: &dyn RecordStore, policy: &str, key: &str) -> StorageUsed {
    store.storage_used(counter(policy, key)).await.unwrap()
}

async fn concurrent_uploads_never_exceed_a_limit(backend: impl Backend) {
    let store = records(&backend);
    let limits = UNLIMITED;
    for (key, limits, unit, used_up, limit) in [
        (
            "bytes",
            StorageLimits {
                max_bytes: Some(129),
                ..limits
            },
            StorageUnit::Bytes,
            120,
            129,
        ),
        (
            "images",
            StorageLimits {
                max_images: Some(12),
                ..limits
            },
            StorageUnit::Images,
            12,
            12,
        ),
        (
            "open",
            StorageLimits {
                max_open: 12,
                ..limits
            },
            StorageUnit::Open,
            12,
            12,
        ),
    ] {
        let begun = (0..50).map(|_| {
            let everyone = charge("total", key, UNLIMITED);
            let intent = charged(10, vec![everyone, charge("space", key, limits)]);
            store.begin(Arc::new(intent))
        });
        let mut recorded = 0;
        for begun in join_all(begun).await {
            match begun.unwrap() {
                Begun::Recorded(exceeded) => {
                    assert_eq!(exceeded, []);
                    recorded += 1;
                }
                Begun::Full(policy, full) => {
                    assert_eq!(policy.as_str(), "space");
                    assert_eq!((full.unit, full.used, full.limit), (unit, used_up, limit));
                    let asked = (unit == StorageUnit::Bytes).then_some(10);
                    assert_eq!((full.asked, full.key), (asked, format!("user={key}")));
                }
                Begun::SlotTaken => panic!("it has no slot"),
            }
        }
        assert_eq!(recorded, 12, "{key}");
        for policy in ["space", "total"] {
            let held = held(&*store, policy, key).await;
            assert_eq!(held, used(120, 12, 12), "{policy} {key}");
        }
    }
}

async fn an_upload_that_does_not_fit_leaves_nothing(backend: impl Backend) {
    let store = records(&backend);
    let none = StorageLimits {
        max_images: Some(0),
        ..UNLIMITED
    };
    let charges = vec![
        charge("first", "alice", UNLIMITED),
        charge("second", "alice", none),
        charge("third", "alice", none),
    ];
    let intent = Arc::new(Intent {
        replay: Some(Replay {
            slot: [1; 32],
            parameters: [1; 32],
        }),
        ..charged(10, charges)
    });
    let begun = store.begin(intent.clone()).await.unwrap();
    let Begun::Full(policy, full) = begun else {
        panic!("{begun:?}")
    };
    assert_eq!(policy.as_str(), "second");
    assert_eq!((full.unit, full.used), (StorageUnit::Images, 0));
    assert_eq!(record(&*store, intent.id).await, None);
    assert!(store.replayed([1; 32]).await.unwrap().is_none());
    assert!(
        store
            .take_due(at(999), at(1000), 9)
            .await
            .unwrap()
            .is_empty()
    );
    for policy in ["first", "second", "third"] {
        let held = held(&*store, policy, "alice").await;
        assert_eq!(held, StorageUsed::default());
    }
}

async fn a_repeated_upload_takes_no_storage(backend: impl Backend) {
    let store = records(&backend);
    let one = StorageLimits {
        max_images: Some(1),
        ..UNLIMITED
    };
    let with_slot = || {
        Arc::new(Intent {
            replay: Some(Replay {
                slot: [1; 32],
                parameters: [1; 32],
            }),
            ..charged(10, vec![charge("space", "alice", one)])
        })
    };
    let first = with_slot();
    assert!(begin(&*store, first.clone()).await);
    // The storage is full, but the client asks for what it has.
    assert!(!begin(&*store, with_slot()).await);
    assert!(complete(&*store, first.clone(), new_image()).await);
    assert!(!begin(&*store, with_slot()).await);
    assert!(!begin(&*store, first).await);
    assert_eq!(held(&*store, "space", "alice").await, used(10, 1, 1));
}

async fn a_limit_that_is_not_enforced_is_counted_and_reported(backend: impl Backend) {
    let store = records(&backend);
    let small = StorageLimits {
        max_bytes: Some(15),
        ..UNLIMITED
    };
    let observed = || StorageCharge {
        is_enforced: false,
        note: Some("the plan is unknown".to_owned()),
        ..charge("observed", "alice", small)
    };
    let enforced = || charge("enforced", "alice", UNLIMITED);
    let begun = async |charges| {
        let begun = store.begin(Arc::new(charged(10, charges))).await;
        begun.unwrap()
    };
    let fits = begun(vec![observed(), enforced()]).await;
    assert_eq!(fits, Begun::Recorded(vec![]));
    let Begun::Recorded(exceeded) = begun(vec![observed(), enforced()]).await else {
        panic!("it is denied")
    };
    let [(policy, full)] = &exceeded[..] else {
        panic!("{exceeded:?}")
    };
    assert_eq!(policy.as_str(), "observed");
    assert_eq!((full.used, full.limit, full.asked), (10, 15, Some(10)));
    assert_eq!(full.note.as_deref(), Some("the plan is unknown"));
    for policy in ["observed", "enforced"] {
        assert_eq!(held(&*store, policy, "alice").await, used(20, 2, 2));
    }
}

async fn a_missing_intent_is_counted_even_if_it_does_not_fit(backend: impl Backend) {
    let store = records(&backend);
    let none = StorageLimits {
        max_open: 1,
        max_images: Some(0),
        max_bytes: Some(0),
    };
    let intent = Arc::new(charged(10, vec![charge("space", "alice", none)]));
    let image = new_image();
    for _ in 0..2 {
        assert!(complete(&*store, intent.clone(), image.clone()).await);
        assert_eq!(held(&*store, "space", "alice").await, used(10, 1, 1));
    }
    assert!(!complete(&*store, intent.clone(), new_image()).await);
    assert_eq!(held(&*store, "space", "alice").await, used(10, 1, 1));
    assert!(delete(&*store, intent.id, at(1)).await);
    // It is no longer missing, and its image was deleted.
    assert!(!complete(&*store, intent.clone(), image).await);
    let left = held(&*store, "space", "alice").await;
    assert_eq!(left, StorageUsed::default());
}

async fn enormous_sizes_are_counted_and_given_back(backend: impl Backend) {
    let store = records(&backend);
    let intents = [of_alice(u64::MAX), of_alice(u64::MAX), of_alice(1)];
    for intent in &intents {
        assert!(begin(&*store, intent.clone()).await);
        assert!(complete(&*store, intent.clone(), new_image()).await);
    }
    let all = held(&*store, "space", "alice").await;
    assert_eq!((all.images, all.open), (3, 3));
    assert!(all.bytes >= u64::MAX / 2, "{all:?}");
    // One with a limit does not fit, whatever the limit.
    let limits = StorageLimits {
        max_bytes: Some(u64::MAX / 2),
        ..UNLIMITED
    };
    let more = charged(1, vec![charge("space", "alice", limits)]);
    let more = store.begin(Arc::new(more)).await.unwrap();
    assert!(matches!(more, Begun::Full(..)), "{more:?}");
    for intent in intents {
        assert!(delete(&*store, intent.id, at(1)).await);
    }
    let left = held(&*store, "space", "alice").await;
    assert_eq!(left, StorageUsed::default());
}
