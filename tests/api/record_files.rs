//! Records of uploads in a SQLite file, together with its quotas.

use std::{fs, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use policies::{Reservation, StoreUse, Window};

use crate::{
    backends::{Backend as _, Sqlite, main_store, open, open_as, system_clock},
    helpers::{
        Access, Stores, eventually,
        records::{
            Backlog, Begun, Erasure, EventKind, FileFacts, Holder, NewEvent, Progress, ReadRate,
            RecordId, RecordQuery, RecordStore, UploadState,
        },
    },
    quota_stores::counter,
    record_storage::{UNLIMITED, charge, charged, held, used},
    record_stores::{
        FIRST, FOLLOWED_AT, at, begin, intent, new_id, new_image, origin, record, records, upload,
        with_slot,
    },
};

pub(crate) const BOTH: [StoreUse; 2] = [StoreUse::Quotas, StoreUse::Uploads];

pub(crate) fn of(stores: &Stores) -> Arc<dyn RecordStore> {
    stores.records(&main_store()).unwrap()
}

async fn reconciles(store: &dyn RecordStore) -> bool {
    let taken = store.take_reconciliation(at(0), at(1000)).await;
    taken.unwrap().is_some()
}

pub(crate) async fn followed(store: &dyn RecordStore, now: Timestamp) -> Vec<RecordId> {
    let rate = ReadRate {
        limit: 100,
        period: Duration::from_secs(1),
    };
    let until = now + Duration::from_secs(1000);
    let taken = store.take_followed(now, until, 9, rate).await.unwrap();
    taken.into_iter().map(|record| record.id).collect()
}

#[actix_web::test]
async fn opening_the_file_makes_all_that_was_begun_due() {
    let file = Sqlite::new();
    let begun = with_slot(1, 1);
    let subject = begun.origin.subject.clone();
    {
        let store = records(&file);
        assert!(begin(&*store, begun.clone()).await);
        let erasure = Erasure {
            id: uuid::Uuid::now_v7(),
            subject,
            until: new_id(),
            progress: Progress::default(),
        };
        store.start_erasure(erasure).await.unwrap();
        let taken = store.take_erasure(at(0), at(1000)).await.unwrap();
        assert!(taken.is_some());
        let started = store.start_reconciliation(uuid::Uuid::now_v7());
        started.await.unwrap();
        assert!(reconciles(&*store).await);
        let (id, _) = upload(&*store, intent(origin("alice", None))).await;
        let event = NewEvent {
            kind: EventKind::UploadReady,
            at: at(0),
            data: "{}".into(),
        };
        let settled = store.settle(id, UploadState::Ready, FileFacts::default(), vec![event]);
        assert!(settled.await.unwrap());
        assert_eq!(
            store.take_events(at(0), at(1000), 9).await.unwrap().len(),
            1
        );
        upload(&*store, intent(origin("alice", None))).await;
        assert_eq!(followed(&*store, at(FOLLOWED_AT)).await.len(), 1);
        assert!(store.take_due(at(0), at(1000), 9).await.unwrap().is_empty());
    }
    let store = records(&file);
    let due = store.take_due(at(0), at(1000), 9).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].id, begun.id);
    assert!(store.take_erasure(at(0), at(1000)).await.unwrap().is_some());
    assert!(reconciles(&*store).await);
    assert_eq!(followed(&*store, at(FOLLOWED_AT)).await.len(), 1);
    let events = store.take_events(at(0), at(1000), 9).await.unwrap();
    assert_eq!(events.len(), 1);
    // Only once.
    assert!(!reconciles(&*store).await);
    assert!(followed(&*store, at(FOLLOWED_AT)).await.is_empty());
    let events = store.take_events(at(0), at(1000), 9).await.unwrap();
    assert!(events.is_empty());
    assert!(store.take_due(at(0), at(1000), 9).await.unwrap().is_empty());
    assert!(begin(&*store, with_slot(2, 1)).await);
    assert!(store.take_due(at(0), at(1000), 9).await.unwrap().is_empty());
}

#[actix_web::test]
async fn a_file_of_quotas_is_opened_once_for_both_uses_and_stays_open_across_reloads() {
    let file = Sqlite::new();
    let window = Window {
        start: at(0),
        end: at(1000),
    };
    let reserve = async |stores: &Stores| {
        let quotas = stores.quotas(&main_store()).unwrap();
        let reserved = quotas
            .reserve(counter("daily", "user_1"), window, 100)
            .await;
        let Reservation::Granted { mut hold, used, .. } = reserved.unwrap() else {
            panic!("the limit is reached")
        };
        hold.commit().await.unwrap();
        used
    };
    let url = file.url();
    let mut stores = open(&url, &[StoreUse::Quotas], system_clock());
    assert_eq!(reserve(&stores).await, 1);
    let mut begun = Vec::new();
    for (index, uses) in [&BOTH[..], &BOTH[1..], &BOTH, &BOTH[..1], &BOTH]
        .iter()
        .enumerate()
    {
        // A second opening of the file would fail.
        let before = Access::ReadWrite(Some(&stores));
        let reloaded = open_as(&url, uses, system_clock(), before);
        let store = reloaded.iter().next().unwrap();
        assert_eq!(store.uses().collect::<Vec<_>>(), *uses);
        for of_store in BOTH {
            assert!(store.is_healthy_for(of_store));
        }
        assert!(store.check().await.is_ok());
        let intent = with_slot(u8::try_from(index).unwrap(), 1);
        assert!(begin(&*of(&reloaded), intent.clone()).await);
        begun.push(intent.id);
        assert_eq!(reserve(&reloaded).await, index as u64 + 2);
        stores = reloaded;
    }
    // No reload took over what was begun in this process.
    let due = of(&stores).take_due(at(59), at(99), 9).await.unwrap();
    assert!(due.is_empty());
    let due = of(&stores).take_due(at(60), at(99), 9).await.unwrap();
    assert_eq!(due.len(), begun.len());
}

#[actix_web::test]
async fn changes_of_a_failed_commit_fail_and_are_not_written_later() {
    let mut file = Sqlite::new();
    let store = records(&file);
    let (first, failed, last) = (with_slot(1, 1), with_slot(2, 1), with_slot(3, 1));
    assert!(begin(&*store, first.clone()).await);
    file.go_down();
    let begun = store.begin(failed.clone()).await;
    assert!(begun.unwrap_err().to_string().contains("main"));
    eventually("the store is down", async || {
        let read = store.image(&new_image()).await;
        read.is_err_and(|fault| format!("{fault:?}").contains("Down"))
    })
    .await;
    assert!(store.begin(last.clone()).await.is_err());
    file.come_up().await;
    eventually("the store is back", async || {
        let begun = store.begin(last.clone()).await;
        begun.is_ok_and(|begun| begun == Begun::Recorded(vec![]))
    })
    .await;
    assert!(record(&*store, first.id).await.is_some());
    assert_eq!(record(&*store, failed.id).await, None);
}

#[actix_web::test]
async fn records_are_not_read_from_a_file_that_was_replaced() {
    let file = Sqlite::new();
    let store = records(&file);
    let (_, image) = upload(&*store, intent(origin("alice", None))).await;
    assert!(store.image(&image).await.unwrap().is_some());
    let moved = file.path().with_extension("moved");
    fs::rename(file.path(), &moved).unwrap();
    let fault = store.image(&image).await.unwrap_err();
    let text = format!("{fault:?}");
    assert!(
        text.contains("deleted or moved") || text.contains("down"),
        "{text}"
    );
    fs::rename(&moved, file.path()).unwrap();
    eventually("the file is back", async || {
        store.image(&image).await.is_ok_and(|found| found.is_some())
    })
    .await;
}

/// The writer opens the file again, which must not lose what is in the log.
#[actix_web::test]
async fn records_survive_the_deletion_of_the_log_while_they_are_read() {
    let file = Sqlite::new();
    let store = records(&file);
    let mut images = Vec::new();
    for _ in 0..5 {
        images.push(upload(&*store, intent(origin("alice", None))).await.1);
        assert!(store.image(&images[0]).await.unwrap().is_some());
        for beside in ["db-wal", "db-shm"] {
            fs::remove_file(file.path().with_extension(beside)).unwrap();
        }
        let open = with_slot(images.len() as u8, 1);
        eventually("the store is back", async || {
            store.begin(open.clone()).await.is_ok()
        })
        .await;
    }
    drop(store);
    let store = records(&file);
    for image in &images {
        assert!(store.image(image).await.unwrap().is_some());
    }
}

#[actix_web::test]
async fn reads_do_not_wait_for_the_writer() {
    let file = Sqlite::new();
    let store = records(&file);
    let (_, image) = upload(&*store, intent(origin("alice", None))).await;
    // Another process keeps the writer waiting.
    let other = file.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = begin(&*store, with_slot(1, 1));
    let read = async {
        let found = store.image(&image).await.unwrap();
        assert!(found.is_some());
        other.execute_batch("ROLLBACK").unwrap();
    };
    let (begun, ()) = futures_util::future::join(begun, read).await;
    assert!(begun);
}

#[actix_web::test]
async fn a_store_that_is_only_read_shows_records_and_refuses_changes() {
    let file = Sqlite::new();
    let read_only = |access| of(&open_as(&file.url(), &BOTH, system_clock(), access));
    // There is no file yet.
    let none = read_only(Access::ReadOnly);
    assert!(none.export(None, 9).await.unwrap().is_empty());
    assert!(none.secret().await.is_err());
    assert!(!file.path().exists());

    let store = records(&file);
    let secret = store.secret().await.unwrap();
    let (id, image) = upload(&*store, intent(origin("alice", None))).await;
    // While another gate has the file open.
    let open = read_only(Access::ReadOnly);
    assert_eq!(open.image(&image).await.unwrap().unwrap().id, id);
    assert_eq!(open.secret().await.unwrap(), secret);
    let holder = Holder::Subject(origin("alice", None).subject);
    assert_eq!(open.images(holder, FIRST).await.unwrap().total, 1);
    assert!(open.begin(with_slot(1, 1)).await.is_err());
    assert!(open.remove(id).await.is_err());
    assert!(open.take_events(at(0), at(1), 9).await.is_err());
    let charged = charged(10, vec![charge("space", "alice", UNLIMITED)]);
    assert!(begin(&*store, Arc::new(charged)).await);
    assert_eq!(held(&*open, "space", "alice").await, used(10, 1, 1));
    assert_eq!(open.backlog().await.unwrap(), Backlog::default());
    let job = store.start_reconciliation(uuid::Uuid::now_v7());
    let job = job.await.unwrap();
    assert!(open.reconciled(job).await.unwrap().is_some());
    let empty = read_only(Access::Empty);
    let found = empty.find(RecordQuery::default(), FIRST).await;
    assert!(found.unwrap().is_empty());
    assert!(empty.begin(with_slot(1, 1)).await.is_err());
    assert!(begin(&*store, with_slot(1, 1)).await);
}

/// A file from before there were records.
#[actix_web::test]
async fn a_file_with_quotas_only_gets_the_tables_of_records() {
    let file = Sqlite::new();
    let counters = "CREATE TABLE quota_counters (policy TEXT NOT NULL, key TEXT NOT NULL, window_start INTEGER NOT NULL,
        window_end INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (policy, key)) STRICT, WITHOUT ROWID;
        INSERT INTO quota_counters VALUES ('daily', 'user_1', 1700000000, 1800000000, 7)";
    file.connect().execute_batch(counters).unwrap();
    let read_only = of(&open_as(
        &file.url(),
        &BOTH,
        system_clock(),
        Access::ReadOnly,
    ));
    assert!(read_only.export(None, 9).await.unwrap().is_empty());
    let store = records(&file);
    let uploads = (0..20).map(|_| upload(&*store, intent(origin("alice", None))));
    assert_eq!(join_all(uploads).await.len(), 20);
    drop(store);
    let stores = open(&file.url(), &BOTH, system_clock());
    let window = Window {
        start: at(0),
        end: at(1000),
    };
    let quotas = stores.quotas(&main_store()).unwrap();
    let used = quotas.used(counter("daily", "user_1"), window).await;
    assert_eq!(used.unwrap().0, 7);
    assert_eq!(of(&stores).export(None, 99).await.unwrap().len(), 20);
}
