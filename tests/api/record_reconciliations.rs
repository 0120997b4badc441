//! Reconciliations of records with Imgwire: one suite, with one line for each store.

use std::collections::HashSet;

use futures_util::future::join_all;
use imgwire_gate::gate::reconciliation;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    backends::{Backend, Sqlite, suite, system_clock},
    helpers::records::{ERASURE_KEPT, Intent, Reconciled, Reconciliation, RecordId, RecordStore},
    postgres::Postgres,
    record_stores::{at, intent, new_id, origin, records, upload},
};

suite! {
    [
        one_reconciliation_runs_at_a_time,
        a_reconciliation_is_taken_once_and_again_after_its_time,
        progress_is_kept_and_a_finished_reconciliation_is_not_taken,
        takers_at_once_share_one_reconciliation,
        a_reconciliation_survives_a_restart,
        a_finished_reconciliation_is_forgotten_after_a_while,
        a_reconciliation_includes_a_record_from_a_clock_that_is_ahead,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

async fn start(store: &dyn RecordStore) -> Uuid {
    let id = Uuid::now_v7();
    assert_eq!(store.start_reconciliation(id).await.unwrap(), id);
    id
}

async fn take(store: &dyn RecordStore, now: i64, until: i64) -> Option<Reconciliation> {
    let taken = store.take_reconciliation(at(now), at(until)).await;
    taken.unwrap()
}

fn begun(id: Uuid) -> Reconciliation {
    Reconciliation {
        id,
        after: None,
        progress: Reconciled::default(),
    }
}

async fn finish(store: &dyn RecordStore, reconciliation: Reconciliation) {
    let mut done = reconciliation;
    done.progress.done = true;
    store.save_reconciliation(done, at(0)).await.unwrap();
}

async fn one_reconciliation_runs_at_a_time(backend: impl Backend) {
    let store = records(&backend);
    let first = start(&*store).await;
    for _ in 0..2 {
        let running = store.start_reconciliation(Uuid::now_v7()).await.unwrap();
        assert_eq!(running, first);
        assert!(take(&*store, 0, 10).await.is_none_or(|it| it.id == first));
    }
    finish(&*store, begun(first)).await;
    let second = start(&*store).await;
    assert_eq!(take(&*store, 0, 10).await, Some(begun(second)));
    assert_eq!(store.reconciled(Uuid::now_v7()).await.unwrap(), None);
}

async fn a_reconciliation_is_taken_once_and_again_after_its_time(backend: impl Backend) {
    let store = records(&backend);
    assert_eq!(take(&*store, 0, 10).await, None);
    let id = start(&*store).await;
    assert_eq!(take(&*store, 0, 10).await, Some(begun(id)));
    assert_eq!(take(&*store, 9, 19).await, None);
    assert_eq!(take(&*store, 10, 20).await, Some(begun(id)));
    // Saving keeps it for longer, or gives it back.
    store.save_reconciliation(begun(id), at(30)).await.unwrap();
    assert_eq!(take(&*store, 29, 39).await, None);
    store.save_reconciliation(begun(id), at(25)).await.unwrap();
    assert_eq!(take(&*store, 25, 35).await, Some(begun(id)));
}

async fn progress_is_kept_and_a_finished_reconciliation_is_not_taken(backend: impl Backend) {
    let store = records(&backend);
    let id = start(&*store).await;
    let found = store.reconciled(id).await.unwrap();
    assert_eq!(found, Some(Reconciled::default()));
    let saved = Reconciliation {
        id,
        after: Some(new_id()),
        progress: Reconciled {
            done: false,
            checked: 1000,
            deleted: 7,
            corrected: 5,
            failed: 3,
        },
    };
    store.save_reconciliation(saved, at(10)).await.unwrap();
    assert_eq!(store.reconciled(id).await.unwrap(), Some(saved.progress));
    assert_eq!(take(&*store, 10, 20).await, Some(saved));
    finish(&*store, saved).await;
    let done = Some(Reconciled {
        done: true,
        ..saved.progress
    });
    assert_eq!(store.reconciled(id).await.unwrap(), done);
    assert_eq!(take(&*store, 99, 100).await, None);
    // It stays as it was when it was done.
    store.save_reconciliation(begun(id), at(0)).await.unwrap();
    assert_eq!(store.reconciled(id).await.unwrap(), done);
    assert_eq!(take(&*store, 99, 100).await, None);
}

async fn takers_at_once_share_one_reconciliation(backend: impl Backend) {
    let store = records(&backend);
    let started = (0..8).map(|_| store.start_reconciliation(Uuid::now_v7()));
    let started: Vec<_> = join_all(started)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(started.iter().all(|id| *id == started[0]), "{started:?}");
    let taken = join_all((0..8).map(|_| take(&*store, 0, 10))).await;
    let taken: Vec<_> = taken.into_iter().flatten().collect();
    assert_eq!(taken, [begun(started[0])]);
}

async fn a_reconciliation_survives_a_restart(backend: impl Backend) {
    let saved = {
        let store = records(&backend);
        let id = start(&*store).await;
        let mut saved = take(&*store, 0, 10).await.unwrap();
        assert_eq!(saved.id, id);
        (saved.after, saved.progress.checked) = (Some(new_id()), 250);
        store.save_reconciliation(saved, at(10)).await.unwrap();
        saved
    };
    let store = records(&backend);
    assert_eq!(take(&*store, 10, 20).await, Some(saved));
}

async fn a_finished_reconciliation_is_forgotten_after_a_while(backend: impl Backend) {
    let store = records(&backend);
    let done = start(&*store).await;
    finish(&*store, begun(done)).await;
    let running = start(&*store).await;
    let hour = SignedDuration::from_hours(1);
    let end = system_clock().now() + ERASURE_KEPT;
    for (now, is_known) in [(end - hour, true), (end + hour, false)] {
        let taken = store.take_reconciliation(now, now + hour).await.unwrap();
        assert_eq!(taken, Some(begun(running)));
        let known = store.reconciled(done).await.unwrap();
        assert_eq!(known.is_some(), is_known);
    }
    assert!(store.reconciled(running).await.unwrap().is_some());
}

async fn a_reconciliation_includes_a_record_from_a_clock_that_is_ahead(backend: impl Backend) {
    let store = records(&backend);
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    let seconds = in_an_hour.as_second().try_into().unwrap();
    let ahead = RecordId(Uuid::new_v7(uuid::Timestamp::from_unix(
        uuid::NoContext,
        seconds,
        0,
    )));
    let intent = Intent {
        id: ahead,
        ..intent(origin("user_1", None))
    };
    upload(&*store, intent).await;
    let mut jobs = HashSet::new();
    for _ in 0..2 {
        let job = reconciliation::start(&*store, &*system_clock()).await;
        let job = job.unwrap();
        assert!(RecordId(job) > ahead && jobs.insert(job));
        finish(&*store, begun(job)).await;
    }
}
