//! Uploads that are followed: one suite, with one line for each store.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use policies::TokenId;

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{FileFacts, ReadRate, Record, RecordId, RecordStore, UploadState},
    postgres::Postgres,
    record_stores::{
        FOLLOWED_AT, at, begin, delete, intent, new_id, new_image, origin, records, settle, upload,
        with_slot,
    },
};

suite! {
    [
        an_upload_is_taken_when_it_is_due_and_again_after_its_lease,
        uploads_are_taken_with_the_longest_due_first,
        takers_at_once_get_different_uploads,
        an_upload_is_due_when_its_taker_says,
        only_uploads_whose_file_may_arrive_are_followed,
        an_image_is_followed_again_while_it_is_deleted,
        an_upload_that_stays_open_is_still_followed,
        no_period_has_more_reads_than_the_rate,
        following_survives_a_restart,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

fn rate(limit: u32) -> ReadRate {
    ReadRate {
        limit,
        period: Duration::from_secs(1),
    }
}

async fn take(store: &dyn RecordStore, now: i64, next: i64) -> Vec<RecordId> {
    let taken = store.take_followed(at(now), at(next), 100, rate(1000));
    ids(taken.await.unwrap())
}

fn ids(records: Vec<Record>) -> Vec<RecordId> {
    records.into_iter().map(|record| record.id).collect()
}

async fn followed(store: &dyn RecordStore) -> RecordId {
    upload(store, intent(origin("alice", None))).await.0
}

async fn an_upload_is_taken_when_it_is_due_and_again_after_its_lease(backend: impl Backend) {
    let store = records(&backend);
    let (id, image) = upload(&*store, intent(origin("alice", Some("ws_1")))).await;
    assert_eq!(take(&*store, FOLLOWED_AT - 1, 99).await, []);
    let taken = store.take_followed(at(FOLLOWED_AT), at(80), 100, rate(1000));
    let taken = taken.await.unwrap();
    assert_eq!(taken, [store.image(&image).await.unwrap().unwrap()]);
    assert_eq!(taken[0].id, id);
    assert_eq!(take(&*store, 79, 99).await, []);
    assert_eq!(take(&*store, 80, 90).await, [id]);
    assert_eq!(take(&*store, 89, 99).await, []);
    assert_eq!(take(&*store, 90, 100).await, [id]);
}

async fn uploads_are_taken_with_the_longest_due_first(backend: impl Backend) {
    let store = records(&backend);
    let mut uploads = Vec::new();
    for due in [30, 10, 20, 40] {
        let id = followed(&*store).await;
        store.follow_later(vec![(id, at(due))]).await.unwrap();
        uploads.push(id);
    }
    for expected in [vec![1, 2], vec![0]] {
        let taken = store.take_followed(at(30), at(60), 2, rate(1000));
        let taken: HashSet<_> = ids(taken.await.unwrap()).into_iter().collect();
        let expected = expected.into_iter().map(|number: usize| uploads[number]);
        assert_eq!(taken, expected.collect());
    }
}

async fn takers_at_once_get_different_uploads(backend: impl Backend) {
    let store = records(&backend);
    let uploads = (0..60).map(|_| followed(&*store));
    let uploads: HashSet<_> = join_all(uploads).await.into_iter().collect();
    let mut taken = HashSet::new();
    // Those that meet at a record take others, and the rest later.
    while taken.len() < uploads.len() {
        let takes = (0..6).map(|_| store.take_followed(at(70), at(90), 13, rate(1000)));
        for records in join_all(takes).await {
            let records = records.unwrap();
            assert!(records.len() <= 13);
            for id in ids(records) {
                assert!(taken.insert(id), "it is taken twice");
            }
        }
    }
    assert_eq!(taken, uploads);
    assert_eq!(take(&*store, 89, 99).await, []);
}

async fn an_upload_is_due_when_its_taker_says(backend: impl Backend) {
    let store = records(&backend);
    let (first, second) = (followed(&*store).await, followed(&*store).await);
    assert_eq!(take(&*store, 70, 90).await.len(), 2);
    // Earlier than the lease ends, and later.
    let next = vec![(first, at(75)), (second, at(95)), (new_id(), at(71))];
    store.follow_later(next).await.unwrap();
    assert_eq!(take(&*store, 74, 90).await, []);
    assert_eq!(take(&*store, 75, 90).await, [first]);
    // At once.
    store.follow_later(vec![(first, at(76))]).await.unwrap();
    assert_eq!(take(&*store, 76, 99).await, [first]);
    assert_eq!(take(&*store, 94, 99).await, []);
    assert_eq!(take(&*store, 95, 99).await, [second]);
}

async fn only_uploads_whose_file_may_arrive_are_followed(backend: impl Backend) {
    let store = records(&backend);
    assert!(begin(&*store, with_slot(1, 1)).await);
    let (token, linked) = (TokenId::parse("tok_1").unwrap(), new_id());
    let issued = store.issued(linked, origin("alice", None), token);
    issued.await.unwrap();
    store.link(linked, new_image()).await.unwrap();
    let [ready, quarantined, deleted, removed] = [
        followed(&*store).await,
        followed(&*store).await,
        followed(&*store).await,
        followed(&*store).await,
    ];
    let open = followed(&*store).await;
    let real = FileFacts::default;
    assert!(settle(&*store, ready, UploadState::Ready, real()).await);
    assert!(settle(&*store, quarantined, UploadState::Quarantined, real()).await);
    assert!(delete(&*store, deleted, at(1)).await);
    store.remove(removed).await.unwrap();
    // Whatever a gate says that has taken them before.
    let all = [linked, ready, quarantined, deleted, removed];
    let next = all.into_iter().map(|id| (id, at(70)));
    store.follow_later(next.collect()).await.unwrap();
    assert_eq!(take(&*store, 99, 100).await, [open]);
}

async fn an_image_is_followed_again_while_it_is_deleted(backend: impl Backend) {
    let store = records(&backend);
    let (ready, deleted) = (followed(&*store).await, followed(&*store).await);
    for id in [ready, deleted] {
        assert!(settle(&*store, id, UploadState::Ready, FileFacts::default()).await);
    }
    assert!(delete(&*store, deleted, at(1)).await);
    for id in [ready, deleted, new_id()] {
        store.follow(id, at(80)).await.unwrap();
    }
    assert_eq!(take(&*store, 79, 90).await, []);
    let taken = store.take_followed(at(80), at(90), 100, rate(1000));
    let taken = taken.await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].id, taken[0].state), (ready, UploadState::Ready));
    // The deletion failed, so it is as it was.
    let real = FileFacts::default();
    assert!(!settle(&*store, ready, UploadState::Ready, real).await);
    assert_eq!(take(&*store, 99, 100).await, []);
}

async fn an_upload_that_stays_open_is_still_followed(backend: impl Backend) {
    let store = records(&backend);
    let open = followed(&*store).await;
    let real = FileFacts {
        mime_type: None,
        size: Some(7),
    };
    assert!(!settle(&*store, open, UploadState::Open, real.clone()).await);
    let taken = store.take_followed(at(99), at(100), 100, rate(1000));
    let taken = taken.await.unwrap();
    assert_eq!((taken[0].id, taken[0].state), (open, UploadState::Open));
    assert_eq!(taken[0].real, real);
}

async fn no_period_has_more_reads_than_the_rate(backend: impl Backend) {
    let store = records(&backend);
    let uploads = (0..40).map(|_| followed(&*store));
    join_all(uploads).await;
    let millis = |millis| at(100) + Duration::from_millis(millis);
    let take = async |now: Timestamp, limit| {
        let taken = store.take_followed(now, at(999), limit, rate(10)).await;
        taken.unwrap().len()
    };
    let read = async |now, wanted| store.take_reads(now, wanted, rate(10)).await.unwrap();
    assert_eq!(take(millis(0), 6).await, 6);
    assert_eq!(read(millis(300), 3).await, 3);
    assert_eq!(take(millis(600), 6).await, 1);
    assert_eq!(take(millis(600), 6).await, 0);
    assert_eq!(read(millis(900), 3).await, 0);
    // Those at 0 are a period ago, and the others are not.
    assert_eq!(read(millis(1100), 100).await, 6);
    assert_eq!(take(millis(1100), 6).await, 0);
    assert_eq!(take(millis(1400), 6).await, 3);
    // Takers at once share what is left, with other work.
    let takes = (0..8).map(|_| take(millis(3000), 3));
    let reads = (0..8).map(|_| read(millis(3000), 3));
    let (takes, reads) = futures_util::future::join(join_all(takes), join_all(reads)).await;
    let reads = reads.into_iter().map(|reads| reads as usize);
    assert_eq!(takes.into_iter().chain(reads).sum::<usize>(), 10);
    assert_eq!(take(millis(3999), 6).await, 0);
    // What is due and was not taken waits.
    for second in [4, 5, 6] {
        take(millis(second * 1000 + 100), 40).await;
    }
    assert_eq!(take(millis(7100), 40).await, 0);
    assert_eq!(read(millis(7100), 40).await, 10);
}

async fn following_survives_a_restart(backend: impl Backend) {
    let (first, second) = {
        let store = records(&backend);
        let uploads = (followed(&*store).await, followed(&*store).await);
        assert_eq!(take(&*store, 70, 90).await.len(), 2);
        let later = vec![(uploads.0, at(80))];
        store.follow_later(later).await.unwrap();
        uploads
    };
    let store = records(&backend);
    let taken: HashSet<_> = take(&*store, 90, 100).await.into_iter().collect();
    assert_eq!(taken, HashSet::from([first, second]));
}
