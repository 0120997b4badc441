//! Events that wait for their delivery: one suite, with one line for each store.

use std::collections::HashSet;

use futures_util::future::join_all;

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{
        Backlog, Ending, EventKind, FileFacts, NewEvent, RecordId, RecordStore, StoredEvent,
        UploadState,
    },
    postgres::Postgres,
    record_stores::{at, delete, intent, new_id, origin, records, settle, upload, with_slot},
};

suite! {
    [
        events_are_numbered_per_record_and_taken_in_their_order,
        a_change_that_does_not_happen_adds_no_events,
        events_are_taken_once_and_again_after_their_lease,
        a_failed_delivery_is_due_at_its_next_time,
        delivered_events_are_gone_and_their_numbers_stay_used,
        takers_at_once_get_different_events,
        the_backlog_counts_events_and_tells_the_oldest,
        events_are_dropped_when_they_are_old,
        events_outlive_their_record,
        events_survive_a_restart,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

fn event(kind: EventKind, seconds: i64) -> NewEvent {
    NewEvent {
        kind,
        at: at(seconds),
        data: format!(r#"{{"state":"名前 {kind:?}"}}"#).into(),
    }
}

/// Records an upload and settles it, with the event that it is ready.
async fn ready(store: &dyn RecordStore, seconds: i64) -> RecordId {
    let (id, _) = upload(store, intent(origin("alice", None))).await;
    let events = vec![event(EventKind::UploadReady, seconds)];
    assert!(settled(store, id, UploadState::Ready, events).await);
    id
}

async fn settled(
    store: &dyn RecordStore,
    id: RecordId,
    state: UploadState,
    events: Vec<NewEvent>,
) -> bool {
    let settled = store.settle(id, state, FileFacts::default(), events);
    settled.await.unwrap()
}

async fn deleted(store: &dyn RecordStore, id: RecordId, seconds: i64) -> bool {
    let events = vec![event(EventKind::ImageDeleted, seconds)];
    let deleted = store.delete(id, Ending::Deleted, at(seconds), events);
    deleted.await.unwrap()
}

async fn take(store: &dyn RecordStore, now: i64, next: i64) -> Vec<StoredEvent> {
    store.take_events(at(now), at(next), 100).await.unwrap()
}

fn numbered(events: &[StoredEvent]) -> Vec<(EventKind, u64)> {
    let numbered = events.iter().map(|event| (event.kind, event.sequence));
    numbered.collect()
}

async fn backlog(store: &dyn RecordStore) -> u64 {
    store.backlog().await.unwrap().events
}

async fn events_are_numbered_per_record_and_taken_in_their_order(backend: impl Backend) {
    let store = records(&backend);
    let (first, _) = upload(&*store, intent(origin("alice", None))).await;
    let events = vec![
        event(EventKind::UploadReady, 10),
        event(EventKind::UploadMismatched, 10),
    ];
    assert!(settled(&*store, first, UploadState::Ready, events).await);
    let second = ready(&*store, 20).await;
    let quarantined = vec![event(EventKind::UploadQuarantined, 30)];
    assert!(settled(&*store, first, UploadState::Quarantined, quarantined).await);
    assert!(deleted(&*store, first, 40).await);
    assert!(deleted(&*store, second, 50).await);
    assert_eq!(take(&*store, 9, 99).await.len(), 0);
    let taken = take(&*store, 50, 99).await;
    assert_eq!(
        numbered(&taken),
        [
            (EventKind::UploadReady, 1),
            (EventKind::UploadMismatched, 2),
            (EventKind::UploadReady, 1),
            (EventKind::UploadQuarantined, 3),
            (EventKind::ImageDeleted, 4),
            (EventKind::ImageDeleted, 2),
        ]
    );
    let times: Vec<_> = taken.iter().map(|event| event.at).collect();
    assert_eq!(times, [10, 10, 20, 30, 40, 50].map(at));
    for stored in &taken {
        let new = event(stored.kind, 0);
        assert_eq!((stored.data.clone(), stored.failures), (new.data, 0));
    }
    let ids: HashSet<_> = taken.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), taken.len());
}

async fn a_change_that_does_not_happen_adds_no_events(backend: impl Backend) {
    let store = records(&backend);
    let id = ready(&*store, 1).await;
    let again = || vec![event(EventKind::UploadReady, 2)];
    assert!(!settled(&*store, id, UploadState::Ready, again()).await);
    assert!(!settled(&*store, new_id(), UploadState::Ready, again()).await);
    let begun = with_slot(1, 1);
    assert!(crate::record_stores::begin(&*store, begun.clone()).await);
    assert!(!settled(&*store, begun.id, UploadState::Ready, again()).await);
    assert!(!deleted(&*store, new_id(), 3).await);
    assert_eq!(backlog(&*store).await, 1);
    assert!(deleted(&*store, id, 4).await);
    assert!(!deleted(&*store, id, 5).await);
    assert!(!settled(&*store, id, UploadState::Quarantined, again()).await);
    assert_eq!(backlog(&*store).await, 2);
    // Of gates that notice a change at once, one adds its events.
    let (other, _) = upload(&*store, intent(origin("alice", None))).await;
    let settles = (0..10).map(|_| settled(&*store, other, UploadState::Ready, again()));
    let changes = join_all(settles).await.into_iter();
    assert_eq!(changes.filter(|is_change| *is_change).count(), 1);
    assert_eq!(backlog(&*store).await, 3);
    // A change without events is a change.
    assert!(
        settle(
            &*store,
            other,
            UploadState::Quarantined,
            FileFacts::default()
        )
        .await
    );
    assert!(delete(&*store, other, at(6)).await);
    assert_eq!(backlog(&*store).await, 3);
}

async fn events_are_taken_once_and_again_after_their_lease(backend: impl Backend) {
    let store = records(&backend);
    for seconds in [1, 2, 3] {
        ready(&*store, seconds).await;
    }
    let first = store.take_events(at(10), at(20), 2).await.unwrap();
    assert_eq!(
        first.iter().map(|event| event.at).collect::<Vec<_>>(),
        [1, 2].map(at)
    );
    let rest = take(&*store, 10, 30).await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].at, at(3));
    assert_eq!(take(&*store, 19, 40).await.len(), 0);
    let again = take(&*store, 20, 40).await;
    let ids = |events: &[StoredEvent]| events.iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&first));
    // A lease that ended was no failed delivery.
    assert!(again.iter().all(|event| event.failures == 0));
    assert_eq!(ids(&take(&*store, 30, 40).await), ids(&rest));
}

async fn a_failed_delivery_is_due_at_its_next_time(backend: impl Backend) {
    let store = records(&backend);
    ready(&*store, 1).await;
    let first = take(&*store, 1, 60).await[0].clone();
    for (failures, (now, next)) in [(10, 15), (15, 25), (25, 45)].into_iter().enumerate() {
        let failed = vec![(first.id, at(next))];
        store.finish_events(Vec::new(), failed).await.unwrap();
        // Whether the lease has ended or not.
        assert_eq!(take(&*store, now, 60).await.len(), 0);
        assert_eq!(take(&*store, next - 1, 60).await.len(), 0);
        let again = take(&*store, next, 60).await;
        assert_eq!(again.len(), 1, "{next}");
        assert_eq!((again[0].id, again[0].sequence), (first.id, 1));
        assert_eq!((again[0].at, &again[0].data), (first.at, &first.data));
        assert_eq!(again[0].failures as usize, failures + 1);
    }
}

async fn delivered_events_are_gone_and_their_numbers_stay_used(backend: impl Backend) {
    let store = records(&backend);
    let id = ready(&*store, 1).await;
    let taken = take(&*store, 1, 60).await;
    for _ in 0..2 {
        let delivered = vec![taken[0].id];
        store.finish_events(delivered, Vec::new()).await.unwrap();
    }
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    // A failure that is reported late does not bring it back.
    let failed = vec![(taken[0].id, at(2))];
    store.finish_events(Vec::new(), failed).await.unwrap();
    assert_eq!(take(&*store, 60, 99).await.len(), 0);
    assert!(deleted(&*store, id, 3).await);
    let taken = take(&*store, 60, 99).await;
    assert_eq!(numbered(&taken), [(EventKind::ImageDeleted, 2)]);
}

async fn takers_at_once_get_different_events(backend: impl Backend) {
    let store = records(&backend);
    join_all((0..60).map(|number| ready(&*store, number))).await;
    let mut taken = HashSet::new();
    // Those that meet at an event take others, and the rest later.
    while taken.len() < 60 {
        let takes = (0..6).map(|_| store.take_events(at(60), at(90), 13));
        for events in join_all(takes).await {
            for event in events.unwrap() {
                assert!(taken.insert(event.id), "it is taken twice");
            }
        }
    }
    assert_eq!(take(&*store, 89, 99).await.len(), 0);
}

async fn the_backlog_counts_events_and_tells_the_oldest(backend: impl Backend) {
    let store = records(&backend);
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    for seconds in [30, 10, 20] {
        ready(&*store, seconds).await;
    }
    let expect = async |events, oldest| {
        let oldest = Some(at(oldest));
        let backlog = store.backlog().await.unwrap();
        assert_eq!(backlog, Backlog { events, oldest });
    };
    expect(3, 10).await;
    // Those that are taken wait, too.
    let taken = take(&*store, 30, 60).await;
    expect(3, 10).await;
    store
        .finish_events(vec![taken[0].id], vec![(taken[1].id, at(99))])
        .await
        .unwrap();
    expect(2, 20).await;
}

async fn events_are_dropped_when_they_are_old(backend: impl Backend) {
    let store = records(&backend);
    for seconds in [5, 1, 4, 2, 3] {
        ready(&*store, seconds).await;
    }
    // Whatever their next time is.
    let taken = take(&*store, 1, 60).await;
    let failed = vec![(taken[0].id, at(99))];
    store.finish_events(Vec::new(), failed).await.unwrap();
    for (before, limit, dropped) in [(1, 10, 0), (4, 2, 2), (4, 2, 1), (4, 2, 0)] {
        let result = store.drop_events(at(before), limit).await.unwrap();
        assert_eq!(result, dropped, "{before} {limit}");
    }
    let left = take(&*store, 100, 200).await;
    let left: Vec<_> = left.iter().map(|event| event.at).collect();
    assert_eq!(left, [at(4), at(5)]);
}

async fn events_outlive_their_record(backend: impl Backend) {
    let store = records(&backend);
    let (erased, aged) = (ready(&*store, 1).await, ready(&*store, 2).await);
    for id in [erased, aged] {
        assert!(deleted(&*store, id, 3).await);
    }
    store.remove(erased).await.unwrap();
    assert_eq!(store.remove_old(at(4), 10).await.unwrap(), 1);
    let taken = take(&*store, 10, 20).await;
    assert_eq!(taken.len(), 4);
    let kinds = taken.iter().map(|event| event.kind);
    assert_eq!(
        kinds
            .filter(|kind| *kind == EventKind::ImageDeleted)
            .count(),
        2
    );
}

async fn events_survive_a_restart(backend: impl Backend) {
    let (id, first) = {
        let store = records(&backend);
        let id = ready(&*store, 1).await;
        let taken = take(&*store, 1, 10).await;
        let failed = vec![(taken[0].id, at(5))];
        store.finish_events(Vec::new(), failed).await.unwrap();
        (id, taken[0].id)
    };
    let store = records(&backend);
    assert!(deleted(&*store, id, 6).await);
    let taken = take(&*store, 10, 20).await;
    assert_eq!((taken[0].id, taken[0].failures), (first, 1));
    assert_eq!(
        numbered(&taken),
        [(EventKind::UploadReady, 1), (EventKind::ImageDeleted, 2)]
    );
}
