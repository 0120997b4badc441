//! Records from earlier versions of the gate.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::ImageId;

use crate::{
    backends::{Backend as _, Sqlite, open_as, system_clock},
    helpers::{
        Access,
        records::{Backlog, EventKind, FileFacts, NewEvent, Record, UploadState},
    },
    postgres::Postgres,
    quota_stores::counter,
    record_files::{BOTH, followed, of},
    record_storage::{held, used},
    record_stores::{complete, new_image, records},
};

/// The tables of records as they were before storage was counted and uploads were followed.
const BEFORE_FOLLOWING: &str = "
CREATE TABLE upload_intents (
    id BLOB PRIMARY KEY, subject ANY NOT NULL, workspace ANY, route TEXT NOT NULL, purpose TEXT, mime_type TEXT,
    size INTEGER, created_at INTEGER NOT NULL, slot BLOB, parameters BLOB, due_at INTEGER NOT NULL, call TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX upload_intents_slot ON upload_intents (slot) WHERE slot IS NOT NULL;
CREATE INDEX upload_intents_due ON upload_intents (due_at);
CREATE TABLE upload_records (
    id BLOB PRIMARY KEY, subject ANY NOT NULL, workspace ANY, route TEXT NOT NULL, purpose TEXT, mime_type TEXT,
    size INTEGER, created_at INTEGER NOT NULL, slot BLOB, parameters BLOB, image ANY, token ANY, real_mime_type TEXT,
    real_size INTEGER, state INTEGER NOT NULL, exists_now INTEGER NOT NULL, deleted_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_records_deleted ON upload_records (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX upload_records_issued ON upload_records (created_at) WHERE token IS NOT NULL AND image IS NULL;
CREATE TABLE upload_erasures (
    id BLOB PRIMARY KEY, subject ANY, until BLOB NOT NULL, taken_until INTEGER NOT NULL, done_at INTEGER,
    deleted INTEGER NOT NULL, failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE upload_secret (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), secret BLOB NOT NULL) STRICT;
CREATE TABLE upload_keys (
    hash INTEGER NOT NULL, is_listed INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (hash, is_listed, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE upload_unkeyed (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO upload_secret VALUES (1, zeroblob(32));
INSERT INTO upload_intents VALUES (unhex('018bcfe5680070008000000000000001'), 'alice', NULL, '/imgwire', NULL, NULL, 10,
    1700000000000000, NULL, NULL, 1700000000000000, '{}');
";

/// Of the same time. Its id ends with `number`, and the image is `img_` and the number.
fn insert_before_following(
    file: &Sqlite,
    number: u8,
    created_at: Timestamp,
    state: u8,
    rest: &str,
) {
    let id = format!("018bcfe5680070008000{number:012}");
    let created_at = created_at.as_microsecond();
    let insert = format!(
        "INSERT INTO upload_records VALUES (unhex('{id}'), 'alice', NULL, '/imgwire', NULL, NULL, 20, {created_at},
             NULL, NULL, 'img_{number}', {rest}, NULL, NULL, {state}, 1, NULL);
         INSERT INTO upload_unkeyed VALUES (unhex('{id}'));"
    );
    file.connect().execute_batch(&insert).unwrap();
}

#[actix_web::test]
async fn a_file_from_before_uploads_were_followed_is_migrated_once() {
    let file = Sqlite::new();
    file.connect().execute_batch(BEFORE_FOLLOWING).unwrap();
    let now = system_clock().now();
    let (recent, old) = (
        now - Duration::from_secs(3600),
        now - Duration::from_secs(48 * 3600),
    );
    insert_before_following(&file, 2, recent, 2, "NULL");
    insert_before_following(&file, 3, old, 2, "NULL");
    insert_before_following(&file, 4, recent, 3, "NULL");
    insert_before_following(&file, 5, recent, 2, "'tok_1'");
    let numbers = |records: Vec<Record>| {
        let numbers = records.iter().map(|it| it.id.0.as_bytes()[15]);
        numbers.collect::<Vec<_>>()
    };
    // A store that is only read leaves it as it is.
    let access = Access::ReadOnly;
    let read_only = of(&open_as(&file.url(), &BOTH, system_clock(), access));
    let all = read_only.export(None, 9).await.unwrap();
    assert_eq!(numbers(all), [1, 2, 3, 4, 5]);
    assert_eq!(held(&*read_only, "space", "alice").await, used(0, 0, 0));
    assert_eq!(read_only.backlog().await.unwrap(), Backlog::default());
    let job = read_only.reconciled(uuid::Uuid::now_v7()).await.unwrap();
    assert_eq!(job, None);

    let store = records(&file);
    assert_eq!(
        numbers(store.export(None, 9).await.unwrap()),
        [1, 2, 3, 4, 5]
    );
    // Uploads of the last day are followed, even if they came before the file was migrated.
    let due = followed(&*store, now).await;
    assert_eq!(due.len(), 1);
    let image = ImageId::parse("img_2").unwrap();
    assert_eq!(store.image(&image).await.unwrap().unwrap().id, due[0]);
    assert!(
        store
            .recount(due[0], vec![counter("space", "alice")])
            .await
            .unwrap()
    );
    assert_eq!(held(&*store, "space", "alice").await, used(20, 1, 1));
    let event = NewEvent {
        kind: EventKind::UploadReady,
        at: now,
        data: "{}".into(),
    };
    let settled = store.settle(
        due[0],
        UploadState::Ready,
        FileFacts::default(),
        vec![event],
    );
    assert!(settled.await.unwrap());
    let intents = store.take_due(now, now, 9).await.unwrap();
    assert_eq!(intents.len(), 1);
    assert!(complete(&*store, Arc::new(intents[0].clone()), new_image()).await);
    drop(store);

    let store = records(&file);
    assert_eq!(held(&*store, "space", "alice").await, used(20, 1, 0));
    let due = followed(&*store, now).await;
    assert_eq!(due, [intents[0].id]);
    let events = store.take_events(now, now, 9).await.unwrap();
    assert_eq!((events.len(), events[0].sequence), (1, 1));
}

#[actix_web::test]
async fn a_database_from_before_uploads_were_followed_is_migrated_once() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    for (migration, version) in [
        include_str!("../../src/stores/postgres/migrations/1_quota.sql"),
        include_str!("../../src/stores/postgres/migrations/2_lease.sql"),
        include_str!("../../src/stores/postgres/migrations/3_upload.sql"),
    ]
    .into_iter()
    .zip(1..)
    {
        server.run(migration).await;
        let applied = format!("insert into imgwire_gate.migration (version) values ({version})");
        server.run(&applied).await;
    }
    server
        .run(
            "insert into imgwire_gate.upload (id, subject, route, size, created_at, image, token, state, exists_now)
             select ('018bcfe5-6807-7000-8000-00000000000' || number)::uuid, 'alice', '/imgwire', 20,
                    now() - age::interval, 'img_' || number, token, state, true
             from (values (2, '1 hour', null, 'open'), (3, '48 hours', null, 'open'), (4, '1 hour', null, 'ready'),
                          (5, '1 hour', 'tok_1', 'open')) as earlier (number, age, token, state)",
        )
        .await;
    let now = system_clock().now() + Duration::from_secs(10);
    let image = ImageId::parse("img_2").unwrap();
    let store = records(&server);
    assert_eq!(store.export(None, 9).await.unwrap().len(), 4);
    let due = followed(&*store, now).await;
    assert_eq!(due, [store.image(&image).await.unwrap().unwrap().id]);
    let counters = vec![counter("space", "alice")];
    assert!(store.recount(due[0], counters).await.unwrap());
    assert_eq!(held(&*store, "space", "alice").await, used(20, 1, 1));
    drop(store);
    let store = records(&server);
    assert_eq!(held(&*store, "space", "alice").await, used(20, 1, 1));
    assert_eq!(store.export(None, 9).await.unwrap().len(), 4);
}
