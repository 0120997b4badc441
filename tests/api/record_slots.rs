//! Which upload has a slot, and what becomes of intents: one suite, with one line for each store.

use std::sync::Arc;

use futures_util::future::join_all;
use policies::ImageId;

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{Completed, Intent, RecordQuery, UploadState},
    postgres::Postgres,
    record_stores::{
        FIRST, at, begin, complete, delete, intent, new_image, origin, record, records, upload,
        with_slot,
    },
};

suite! {
    [
        a_slot_is_taken_until_its_image_is_deleted,
        a_withdrawn_intent_leaves_nothing_and_frees_its_slot,
        a_removed_record_leaves_nothing_and_frees_its_slot,
        an_upload_is_completed_with_one_image_only,
        an_intent_that_is_completed_without_its_slot_frees_it,
        a_repetition_is_taken_after_its_original_is_settled,
        a_missing_intent_is_recorded_when_it_is_completed,
        a_missing_intent_does_not_take_the_slot_of_another_upload,
        a_deleted_upload_cannot_be_completed,
        concurrent_intents_of_one_slot_record_one_upload,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

async fn a_slot_is_taken_until_its_image_is_deleted(backend: impl Backend) {
    let store = records(&backend);
    assert!(store.replayed([1; 32]).await.unwrap().is_none());
    let first = with_slot(1, 7);
    assert!(begin(&*store, first.clone()).await);
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!(
        (earlier.id, earlier.image, earlier.parameters),
        (first.id, None, [7; 32])
    );
    assert_eq!(earlier.call, Some(first.call.clone()));
    let second = with_slot(1, 8);
    assert!(!begin(&*store, second.clone()).await);
    assert_eq!(record(&*store, second.id).await, None);
    assert!(begin(&*store, with_slot(2, 7)).await);

    let image = new_image();
    assert!(complete(&*store, first.clone(), image.clone()).await);
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!(
        (earlier.id, earlier.image, earlier.parameters),
        (first.id, Some(image), [7; 32])
    );
    assert_eq!(earlier.call, None);
    assert!(!begin(&*store, second.clone()).await);

    delete(&*store, first.id, at(100)).await;
    assert!(store.replayed([1; 32]).await.unwrap().is_none());
    assert!(begin(&*store, second.clone()).await);
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!((earlier.id, earlier.parameters), (second.id, [8; 32]));
}

async fn a_withdrawn_intent_leaves_nothing_and_frees_its_slot(backend: impl Backend) {
    let store = records(&backend);
    let intent = with_slot(1, 1);
    assert!(begin(&*store, intent.clone()).await);
    store.withdraw(intent.id).await.unwrap();
    assert_eq!(record(&*store, intent.id).await, None);
    assert!(store.replayed([1; 32]).await.unwrap().is_none());
    assert!(begin(&*store, with_slot(1, 2)).await);
    // An upload whose image is known is no intent.
    let (id, image) = upload(&*store, self::intent(origin("alice", None))).await;
    store.withdraw(id).await.unwrap();
    assert!(store.image(&image).await.unwrap().is_some());
}

async fn a_removed_record_leaves_nothing_and_frees_its_slot(backend: impl Backend) {
    let store = records(&backend);
    let begun = with_slot(1, 1);
    assert!(begin(&*store, begun.clone()).await);
    let (completed, image) = upload(&*store, (*with_slot(2, 1)).clone()).await;
    for id in [begun.id, completed] {
        store.remove(id).await.unwrap();
        assert_eq!(record(&*store, id).await, None);
    }
    assert_eq!(store.image(&image).await.unwrap(), None);
    assert!(begin(&*store, with_slot(1, 1)).await);
    assert!(begin(&*store, with_slot(2, 1)).await);
}

async fn an_upload_is_completed_with_one_image_only(backend: impl Backend) {
    let store = records(&backend);
    let intent = with_slot(1, 1);
    assert!(begin(&*store, intent.clone()).await);
    let image = new_image();
    for _ in 0..2 {
        assert!(complete(&*store, intent.clone(), image.clone()).await);
    }
    assert!(!complete(&*store, intent.clone(), new_image()).await);
    assert_eq!(record(&*store, intent.id).await.unwrap().image, Some(image));
    // It is not begun again.
    assert!(!begin(&*store, intent.clone()).await);
}

async fn an_intent_that_is_completed_without_its_slot_frees_it(backend: impl Backend) {
    let store = records(&backend);
    let (intent, image) = (with_slot(1, 9), new_image());
    assert!(begin(&*store, intent.clone()).await);
    let without_slot = Arc::new(Intent {
        replay: None,
        ..(*intent).clone()
    });
    let named = async |image: &ImageId| {
        let completed = store.complete(without_slot.clone(), image.clone(), at(1));
        completed.await.unwrap()
    };
    assert_eq!(named(&image).await, Completed::Now);
    assert_eq!(named(&image).await, Completed::Before);
    assert_eq!(named(&new_image()).await, Completed::Never);
    assert!(store.replayed([1; 32]).await.unwrap().is_none());
    let again = with_slot(1, 9);
    assert!(begin(&*store, again.clone()).await);
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!(earlier.id, again.id);
    delete(&*store, intent.id, at(9)).await;
    assert_eq!(named(&image).await, Completed::Never);
}

async fn a_repetition_is_taken_after_its_original_is_settled(backend: impl Backend) {
    let store = records(&backend);
    let (original, image) = (with_slot(1, 9), new_image());
    let repetition = Arc::new(Intent {
        replay: None,
        call: original.call.clone(),
        ..(*with_slot(2, 9)).clone()
    });
    assert!(begin(&*store, original.clone()).await);
    assert!(begin(&*store, repetition.clone()).await);
    let take = async |now, next| {
        let taken = store.take_due(at(now), at(next), 9).await.unwrap();
        taken.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(take(99, 200).await, [original.id]);
    assert!(take(99, 200).await.is_empty());
    assert!(complete(&*store, original, image).await);
    assert_eq!(take(99, 200).await, [repetition.id]);
}

async fn a_missing_intent_is_recorded_when_it_is_completed(backend: impl Backend) {
    let store = records(&backend);
    let (intent, image) = (with_slot(1, 9), new_image());
    assert!(complete(&*store, intent.clone(), image.clone()).await);
    let record = store.image(&image).await.unwrap().unwrap();
    assert_eq!((record.id, &record.origin), (intent.id, &intent.origin));
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!((earlier.id, earlier.parameters), (intent.id, [9; 32]));
}

async fn a_missing_intent_does_not_take_the_slot_of_another_upload(backend: impl Backend) {
    let store = records(&backend);
    let (begun, completed) = (with_slot(1, 1), with_slot(2, 1));
    assert!(begin(&*store, begun.clone()).await);
    let first = new_image();
    assert!(complete(&*store, completed.clone(), first).await);
    for (slot, owner) in [(1, begun.id), (2, completed.id)] {
        let image = new_image();
        let missing = with_slot(slot, 2);
        assert!(complete(&*store, missing, image.clone()).await);
        assert!(store.image(&image).await.unwrap().is_some());
        let earlier = store.replayed([slot; 32]).await.unwrap().unwrap();
        assert_eq!((earlier.id, earlier.parameters), (owner, [1; 32]));
    }
}

async fn a_deleted_upload_cannot_be_completed(backend: impl Backend) {
    let store = records(&backend);
    let (deleted, begun) = (with_slot(1, 1), with_slot(2, 1));
    let image = new_image();
    assert!(complete(&*store, deleted.clone(), image.clone()).await);
    assert!(begin(&*store, begun.clone()).await);
    for intent in [deleted, begun] {
        delete(&*store, intent.id, at(9)).await;
        let completed = complete(&*store, intent.clone(), image.clone()).await;
        assert!(!completed);
        let record = record(&*store, intent.id).await.unwrap();
        assert_eq!(record.state, UploadState::Deleted);
        assert_eq!(record.deleted_at, Some(at(9)));
    }
    assert_eq!(store.image(&image).await.unwrap(), None);
    assert!(
        store
            .take_due(at(999), at(1000), 9)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn concurrent_intents_of_one_slot_record_one_upload(backend: impl Backend) {
    let store = records(&backend);
    let begun = join_all((0..100).map(|number| begin(&*store, with_slot(1, number)))).await;
    assert_eq!(begun.into_iter().filter(|has_begun| *has_begun).count(), 1);
    let all = store.find(RecordQuery::default(), FIRST).await.unwrap();
    assert_eq!(all.len(), 1);
}
