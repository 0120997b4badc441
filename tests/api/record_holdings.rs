//! What records hold of the storage, from their begin to their end: one suite, with one line for each store.

use std::sync::Arc;

use policies::{StorageUsed, TokenId};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{Ending, FileFacts, RecordId, RecordStore, UploadState},
    postgres::Postgres,
    quota_stores::counter,
    record_storage::{UNLIMITED, charge, charged, held, of_alice, used},
    record_stores::{at, begin, complete, delete, new_id, new_image, origin, records, settle},
};

suite! {
    [
        an_upload_holds_its_declared_size_until_the_real_one_is_known,
        whatever_ends_an_upload_gives_back_its_storage_once,
        a_renamed_policy_starts_over,
        an_image_is_recounted_in_other_counters,
        an_image_of_a_token_or_in_deletion_is_not_open,
        storage_survives_a_restart,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

fn sized(size: u64) -> FileFacts {
    FileFacts {
        mime_type: None,
        size: Some(size),
    }
}

async fn an_upload_holds_its_declared_size_until_the_real_one_is_known(backend: impl Backend) {
    let store = records(&backend);
    let held = async || held(&*store, "space", "alice").await;
    let (intent, image) = (of_alice(10), new_image());
    assert!(begin(&*store, intent.clone()).await);
    assert_eq!(held().await, used(10, 1, 1));
    for _ in 0..2 {
        assert!(complete(&*store, intent.clone(), image.clone()).await);
        assert_eq!(held().await, used(10, 1, 1));
    }
    for (state, real, is_change, expected) in [
        // Imgwire did not report the size.
        (UploadState::Ready, FileFacts::default(), true, 10),
        (UploadState::Ready, sized(7), false, 7),
        (UploadState::Ready, FileFacts::default(), false, 7),
        (UploadState::Quarantined, sized(12), true, 12),
        (UploadState::Quarantined, sized(0), false, 0),
    ] {
        let settled = settle(&*store, intent.id, state, real.clone()).await;
        assert_eq!(settled, is_change, "{state:?} {real:?}");
        assert_eq!(held().await, used(expected, 1, 0), "{state:?} {real:?}");
    }
    assert!(delete(&*store, intent.id, at(1)).await);
    assert_eq!(held().await, StorageUsed::default());
    settle(&*store, intent.id, UploadState::Ready, sized(5)).await;
    assert_eq!(held().await, StorageUsed::default());
}

/// How far an upload gets before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Intent,
    Open,
    Settled,
}

async fn whatever_ends_an_upload_gives_back_its_storage_once(backend: impl Backend) {
    let store = records(&backend);
    // Otherwise one that gives back too much would not show.
    for _ in 0..3 {
        assert!(begin(&*store, of_alice(100)).await);
    }
    let others = used(300, 3, 3);
    for stage in [Stage::Intent, Stage::Open, Stage::Settled] {
        for end in ["withdraw", "remove", "delete", "abandon"] {
            let intent = of_alice(10);
            assert!(begin(&*store, intent.clone()).await);
            if stage != Stage::Intent {
                assert!(complete(&*store, intent.clone(), new_image()).await);
            }
            if stage == Stage::Settled {
                assert!(settle(&*store, intent.id, UploadState::Ready, sized(4)).await);
            }
            for _ in 0..2 {
                end_upload(&*store, intent.id, end).await;
            }
            // Only an intent can be withdrawn.
            if end == "withdraw" && stage != Stage::Intent {
                assert_ne!(held(&*store, "space", "alice").await, others);
                end_upload(&*store, intent.id, "delete").await;
            }
            let left = held(&*store, "space", "alice").await;
            assert_eq!(left, others, "{stage:?} {end}");
            end_upload(&*store, intent.id, "remove").await;
            let left = held(&*store, "space", "alice").await;
            assert_eq!(left, others, "{stage:?} {end} and remove");
        }
    }
    // Records of deleted images hold nothing.
    let intent = of_alice(10);
    assert!(complete(&*store, intent.clone(), new_image()).await);
    assert!(delete(&*store, intent.id, at(1)).await);
    assert!(store.remove_old(at(2), 100).await.unwrap() > 0);
    assert_eq!(held(&*store, "space", "alice").await, others);
}

async fn end_upload(store: &dyn RecordStore, id: RecordId, end: &str) {
    let delete = async |ending| {
        let deleted = store.delete(id, ending, at(1), Vec::new()).await;
        deleted.unwrap();
    };
    match end {
        "withdraw" => store.withdraw(id).await.unwrap(),
        "remove" => store.remove(id).await.unwrap(),
        "delete" => delete(Ending::Deleted).await,
        _ => delete(Ending::Abandoned).await,
    }
}

async fn a_renamed_policy_starts_over(backend: impl Backend) {
    let store = records(&backend);
    let before = Arc::new(charged(10, vec![charge("old-name", "alice", UNLIMITED)]));
    assert!(begin(&*store, before.clone()).await);
    assert!(complete(&*store, before.clone(), new_image()).await);
    assert_eq!(held(&*store, "new-name", "alice").await, used(0, 0, 0));
    let after = Arc::new(charged(20, vec![charge("new-name", "alice", UNLIMITED)]));
    assert!(begin(&*store, after).await);
    assert!(settle(&*store, before.id, UploadState::Ready, sized(7)).await);
    assert_eq!(held(&*store, "old-name", "alice").await, used(7, 1, 0));
    assert!(delete(&*store, before.id, at(1)).await);
    assert_eq!(held(&*store, "old-name", "alice").await, used(0, 0, 0));
    assert_eq!(held(&*store, "new-name", "alice").await, used(20, 1, 1));
}

async fn an_image_is_recounted_in_other_counters(backend: impl Backend) {
    let store = records(&backend);
    let held = async |policy| held(&*store, policy, "alice").await;
    let (first, second) = (counter("first", "alice"), counter("second", "alice"));
    let recount = async |id, counters: &[&policies::Counter]| {
        let counters = counters.iter().map(|it| (*it).clone()).collect();
        store.recount(id, counters).await.unwrap()
    };
    // It had none, because the policy was added later.
    let intent = Arc::new(charged(10, vec![]));
    assert!(begin(&*store, intent.clone()).await);
    // An intent takes what it takes when it begins.
    assert!(!recount(intent.id, &[&first]).await);
    assert!(!recount(new_id(), &[&first]).await);
    assert_eq!(held("first").await, used(0, 0, 0));
    assert!(complete(&*store, intent.clone(), new_image()).await);
    assert!(recount(intent.id, &[&first]).await);
    assert!(!recount(intent.id, &[&first]).await);
    assert_eq!(held("first").await, used(10, 1, 1));
    assert!(settle(&*store, intent.id, UploadState::Ready, sized(7)).await);
    assert!(recount(intent.id, &[&first, &second]).await);
    assert!(!recount(intent.id, &[&second, &first]).await);
    for policy in ["first", "second"] {
        assert_eq!(held(policy).await, used(7, 1, 0));
    }
    assert!(recount(intent.id, &[&second]).await);
    assert_eq!(held("first").await, used(0, 0, 0));
    assert_eq!(held("second").await, used(7, 1, 0));
    assert!(recount(intent.id, &[]).await);
    assert_eq!(held("second").await, used(0, 0, 0));
    assert!(delete(&*store, intent.id, at(1)).await);
    assert!(!recount(intent.id, &[&first]).await);
    assert_eq!(held("first").await, used(0, 0, 0));
}

async fn an_image_of_a_token_or_in_deletion_is_not_open(backend: impl Backend) {
    let store = records(&backend);
    let held = async || held(&*store, "space", "alice").await;
    let mut origin = origin("alice", None);
    origin.declared.size = Some(10);
    let (id, token) = (new_id(), TokenId::parse("tok_1").unwrap());
    store.issued(id, origin, token).await.unwrap();
    let counters = || vec![counter("space", "alice")];
    assert!(!store.recount(id, counters()).await.unwrap());
    store.link(id, new_image()).await.unwrap();
    assert!(store.recount(id, counters()).await.unwrap());
    assert_eq!(held().await, used(10, 1, 0));
    assert!(settle(&*store, id, UploadState::Ready, sized(6)).await);
    assert_eq!(held().await, used(6, 1, 0));
    // A gate follows an image whose deletion begins.
    store.follow(id, at(90)).await.unwrap();
    assert_eq!(held().await, used(6, 1, 0));
    settle(&*store, id, UploadState::Ready, sized(6)).await;
    assert_eq!(held().await, used(6, 1, 0));
    store.follow(id, at(90)).await.unwrap();
    assert!(delete(&*store, id, at(91)).await);
    assert_eq!(held().await, used(0, 0, 0));
    store.follow(id, at(92)).await.unwrap();
    assert_eq!(held().await, used(0, 0, 0));
}

async fn storage_survives_a_restart(backend: impl Backend) {
    let [begun, open, settled] = [10, 20, 30].map(of_alice);
    {
        let store = records(&backend);
        for intent in [&begun, &open, &settled] {
            assert!(begin(&*store, intent.clone()).await);
        }
        for intent in [&open, &settled] {
            assert!(complete(&*store, intent.clone(), new_image()).await);
        }
        assert!(settle(&*store, settled.id, UploadState::Ready, sized(7)).await);
    }
    let store = records(&backend);
    assert_eq!(held(&*store, "space", "alice").await, used(37, 3, 2));
    // An intent that the store returns has taken its storage.
    let due = store.take_due(at(999), at(1000), 9).await.unwrap();
    assert_eq!(due.len(), 1);
    assert!(complete(&*store, Arc::new(due[0].clone()), new_image()).await);
    assert_eq!(held(&*store, "space", "alice").await, used(37, 3, 2));
    for id in [begun.id, open.id, settled.id] {
        assert!(delete(&*store, id, at(1)).await);
    }
    let left = held(&*store, "space", "alice").await;
    assert_eq!(left, StorageUsed::default());
}
