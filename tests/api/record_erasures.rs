//! Erasures of a person's images: one suite, with one line for each store.

use std::collections::HashSet;

use futures_util::future::join_all;
use jiff::SignedDuration;
use policies::SubjectId;
use uuid::Uuid;

use crate::{
    backends::{Backend, Sqlite, suite, system_clock},
    helpers::records::{ERASURE_KEPT, Erasure, Progress},
    postgres::Postgres,
    record_stores::{at, new_id, records},
};

suite! {
    [
        an_erasure_is_taken_once_and_again_after_its_time,
        a_gate_keeps_an_erasure_for_longer_or_gives_it_back,
        progress_is_kept_and_a_finished_erasure_is_not_taken,
        each_erasure_is_taken_by_one_of_many,
        an_erasure_survives_a_restart,
        a_finished_erasure_is_forgotten_after_a_while,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

fn erasure(subject: &str) -> Erasure {
    Erasure {
        id: Uuid::now_v7(),
        subject: SubjectId::parse(subject).unwrap(),
        until: new_id(),
        progress: Progress::default(),
    }
}

async fn an_erasure_is_taken_once_and_again_after_its_time(backend: impl Backend) {
    let store = records(&backend);
    assert_eq!(store.take_erasure(at(0), at(10)).await.unwrap(), None);
    let erasure = erasure("alice 名前");
    store.start_erasure(erasure.clone()).await.unwrap();
    let take = async |now, until| store.take_erasure(at(now), at(until)).await.unwrap();
    assert_eq!(take(0, 10).await, Some(erasure.clone()));
    assert_eq!(take(9, 19).await, None);
    assert_eq!(take(10, 20).await, Some(erasure));
    assert_eq!(take(19, 29).await, None);
}

async fn a_gate_keeps_an_erasure_for_longer_or_gives_it_back(backend: impl Backend) {
    let store = records(&backend);
    let erasure = erasure("alice");
    store.start_erasure(erasure.clone()).await.unwrap();
    let take = async |now, until| store.take_erasure(at(now), at(until)).await.unwrap();
    assert_eq!(take(0, 10).await, Some(erasure.clone()));
    store.hold_erasure(erasure.id, at(20)).await.unwrap();
    assert_eq!(take(10, 20).await, None);
    assert_eq!(take(19, 29).await, None);
    store.hold_erasure(erasure.id, at(19)).await.unwrap();
    assert_eq!(take(19, 29).await, Some(erasure));
}

async fn progress_is_kept_and_a_finished_erasure_is_not_taken(backend: impl Backend) {
    let store = records(&backend);
    let erasure = erasure("alice");
    assert_eq!(store.erasure(erasure.id).await.unwrap(), None);
    store.start_erasure(erasure.clone()).await.unwrap();
    let found = store.erasure(erasure.id).await.unwrap();
    assert_eq!(found, Some(Progress::default()));
    let mut progress = Progress {
        done: false,
        deleted: 7,
        failed: 2,
    };
    store.update_erasure(erasure.id, progress).await.unwrap();
    assert_eq!(store.erasure(erasure.id).await.unwrap(), Some(progress));
    let taken = store.take_erasure(at(0), at(1)).await.unwrap().unwrap();
    assert_eq!(
        taken,
        Erasure {
            progress,
            ..erasure
        }
    );
    progress.done = true;
    store.update_erasure(taken.id, progress).await.unwrap();
    assert_eq!(store.erasure(taken.id).await.unwrap(), Some(progress));
    assert_eq!(store.take_erasure(at(99), at(100)).await.unwrap(), None);
    // It stays as it was when it was done.
    let late = Progress::default();
    store.update_erasure(taken.id, late).await.unwrap();
    assert_eq!(store.erasure(taken.id).await.unwrap(), Some(progress));
}

async fn each_erasure_is_taken_by_one_of_many(backend: impl Backend) {
    let store = records(&backend);
    let all: Vec<_> = (0..4).map(|_| erasure("alice")).collect();
    for erasure in &all {
        store.start_erasure(erasure.clone()).await.unwrap();
    }
    let taken = join_all((0..12).map(|_| store.take_erasure(at(0), at(10)))).await;
    let taken: Vec<_> = taken.into_iter().filter_map(Result::unwrap).collect();
    let ids: HashSet<_> = taken.iter().map(|erasure| erasure.id).collect();
    assert_eq!(ids.len(), taken.len(), "none is taken twice");
    // Those that met at one row may take it later.
    let mut left = all.len() - taken.len();
    while store.take_erasure(at(0), at(10)).await.unwrap().is_some() {
        left -= 1;
    }
    assert_eq!(left, 0);
}

async fn an_erasure_survives_a_restart(backend: impl Backend) {
    let erasure = erasure("alice");
    {
        let store = records(&backend);
        store.start_erasure(erasure.clone()).await.unwrap();
        let taken = store.take_erasure(at(0), at(10)).await.unwrap();
        assert!(taken.is_some());
    }
    let store = records(&backend);
    let taken = store.take_erasure(at(10), at(20)).await.unwrap();
    assert_eq!(taken, Some(erasure));
}

async fn a_finished_erasure_is_forgotten_after_a_while(backend: impl Backend) {
    let store = records(&backend);
    let (done, open) = (erasure("alice"), erasure("bob"));
    for erasure in [&done, &open] {
        store.start_erasure(erasure.clone()).await.unwrap();
    }
    let progress = Progress {
        done: true,
        ..Progress::default()
    };
    store.update_erasure(done.id, progress).await.unwrap();
    let hour = SignedDuration::from_hours(1);
    let end = system_clock().now() + ERASURE_KEPT;
    for (now, is_known) in [(end - hour, true), (end + hour, false)] {
        let taken = store.take_erasure(now, now + hour).await.unwrap();
        assert_eq!(taken.unwrap().id, open.id);
        assert_eq!(store.erasure(done.id).await.unwrap().is_some(), is_known);
    }
    assert!(store.erasure(open.id).await.unwrap().is_some());
}
