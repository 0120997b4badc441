//! Records of uploads: one suite, with one line for each store.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use policies::{ImageId, Purpose, RoutePath, StoreUse, SubjectId, TokenId, WorkspaceId};
use uuid::Uuid;

use crate::{
    backends::{Backend, Sqlite, main_store, open, suite, system_clock},
    helpers::records::{
        Begun, Completed, Ending, FileFacts, Intent, Origin, Page, Record, RecordId, RecordQuery,
        RecordStore, Replay, UploadState,
    },
    postgres::Postgres,
};

suite! {
    [
        a_completed_upload_is_recorded_with_all_that_was_declared,
        ids_and_texts_with_unusual_characters_are_kept,
        a_deletion_keeps_its_first_time,
        an_image_is_observed_until_it_is_deleted,
        a_token_is_recorded_and_linked_to_its_first_image,
        due_intents_are_taken_by_one_gate_and_due_again_later,
        concurrent_uploads_are_all_recorded,
        gates_share_a_secret_that_survives_restarts,
        records_survive_a_restart,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

pub(crate) fn records(backend: &impl Backend) -> Arc<dyn RecordStore> {
    let uses = [StoreUse::Quotas, StoreUse::Uploads];
    let stores = open(&backend.url(), &uses, system_clock());
    stores.records(&main_store()).unwrap()
}

/// Seconds after a fixed time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A new id. Ids of later calls are greater.
pub(crate) fn new_id() -> RecordId {
    RecordId(Uuid::now_v7())
}

pub(crate) fn origin(subject: &str, workspace: Option<&str>) -> Origin {
    Origin {
        subject: SubjectId::parse(subject).unwrap(),
        workspace: workspace.map(|id| WorkspaceId::parse(id).unwrap()),
        route: RoutePath::parse("/imgwire").unwrap(),
        purpose: None,
        declared: FileFacts::default(),
        created_at: at(0),
    }
}

/// Its call is the one of no other intent.
pub(crate) fn intent(origin: Origin) -> Intent {
    let id = new_id();
    Intent {
        id,
        origin,
        replay: None,
        call: format!(r#"{{"idempotency_key":"{}"}}"#, id.0).into(),
        charges: Arc::default(),
        due_at: at(60),
    }
}

pub(crate) fn with_slot(slot: u8, parameters: u8) -> Arc<Intent> {
    Arc::new(Intent {
        replay: Some(Replay {
            slot: [slot; 32],
            parameters: [parameters; 32],
        }),
        ..intent(origin("alice", None))
    })
}

pub(crate) fn new_image() -> ImageId {
    ImageId::parse(&Uuid::new_v4().to_string()).unwrap()
}

/// Begins an upload. Returns whether it is recorded.
pub(crate) async fn begin(store: &dyn RecordStore, intent: Arc<Intent>) -> bool {
    match store.begin(intent).await.unwrap() {
        Begun::Recorded(observed) => {
            assert_eq!(observed, []);
            true
        }
        Begun::SlotTaken => false,
        full @ Begun::Full(..) => panic!("{full:?}"),
    }
}

/// Names the image of an upload, which is followed from [`FOLLOWED_AT`] on. Returns whether the upload names it now.
pub(crate) async fn complete(store: &dyn RecordStore, intent: Arc<Intent>, image: ImageId) -> bool {
    let completed = store.complete(intent, image, at(FOLLOWED_AT));
    completed.await.unwrap() != Completed::Never
}

/// Seconds for [`at`].
pub(crate) const FOLLOWED_AT: i64 = 64;

/// Settles an image without events. Returns whether its state changes.
pub(crate) async fn settle(
    store: &dyn RecordStore,
    id: RecordId,
    state: UploadState,
    real: FileFacts,
) -> bool {
    let settled = store.settle(id, state, real, Vec::new());
    settled.await.unwrap()
}

/// Deletes an image without events. Returns whether it was not deleted before.
pub(crate) async fn delete(store: &dyn RecordStore, id: RecordId, at: Timestamp) -> bool {
    let deleted = store.delete(id, Ending::Deleted, at, Vec::new());
    deleted.await.unwrap()
}

/// Records an upload whose image is known.
pub(crate) async fn upload(store: &dyn RecordStore, intent: Intent) -> (RecordId, ImageId) {
    let (intent, image) = (Arc::new(intent), new_image());
    assert!(begin(store, intent.clone()).await);
    let completed = complete(store, intent.clone(), image.clone()).await;
    assert!(completed);
    (intent.id, image)
}

pub(crate) const FIRST: Page = Page {
    number: 1,
    size: 100,
};

/// The record, whatever its state.
pub(crate) async fn record(store: &dyn RecordStore, id: RecordId) -> Option<Record> {
    let all = store.find(RecordQuery::default(), FIRST).await.unwrap();
    all.into_iter().find(|record| record.id == id)
}

async fn a_completed_upload_is_recorded_with_all_that_was_declared(backend: impl Backend) {
    let store = records(&backend);
    let intent = Arc::new(intent(Origin {
        purpose: Some(Purpose::parse("avatar").unwrap()),
        declared: FileFacts {
            mime_type: Some("image/png".to_owned()),
            size: Some(8_388_608),
        },
        created_at: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
        ..origin("alice", Some("ws_1"))
    }));
    assert!(begin(&*store, intent.clone()).await);
    let requested = Record {
        id: intent.id,
        origin: intent.origin.clone(),
        image: None,
        token: None,
        real: FileFacts::default(),
        state: UploadState::Requested,
        deleted_at: None,
    };
    assert_eq!(record(&*store, intent.id).await, Some(requested.clone()));
    let image = new_image();
    assert_eq!(store.image(&image).await.unwrap(), None);
    assert!(complete(&*store, intent.clone(), image.clone()).await);
    let open = Record {
        image: Some(image.clone()),
        state: UploadState::Open,
        ..requested
    };
    assert_eq!(store.image(&image).await.unwrap(), Some(open.clone()));
    assert_eq!(record(&*store, intent.id).await, Some(open));
}

async fn ids_and_texts_with_unusual_characters_are_kept(backend: impl Backend) {
    let store = records(&backend);
    for id in [
        "it's \"quoted\" \\ %00 $1 ?",
        "名前 🦀 \u{202e}",
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "6f9619ff8b86d011b42d00c04fc964ff",
        "{6f9619ff-8b86-d011-b42d-00c04fc964ff}",
        "42",
        "0042",
        "1e3",
        &"x".repeat(255),
    ] {
        let declared = FileFacts {
            mime_type: Some(id.to_owned()),
            size: Some(u64::from(u32::MAX) * 1000),
        };
        let origin = Origin {
            purpose: Some(Purpose::parse(id).unwrap()),
            declared,
            ..origin(id, Some(id))
        };
        let (_, image) = upload(&*store, intent(origin.clone())).await;
        let record = store.image(&image).await.unwrap().unwrap();
        assert_eq!(record.origin, origin);
        let query = RecordQuery {
            subject: Some(origin.subject.clone()),
            workspace: origin.workspace.clone(),
            ..RecordQuery::default()
        };
        assert_eq!(store.find(query, FIRST).await.unwrap(), [record]);
    }
    for image in [
        "img_1",
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "6f9619ff8b86d011b42d00c04fc964ff",
        "0",
    ] {
        let image = ImageId::parse(image).unwrap();
        let intent = Arc::new(intent(origin("alice", None)));
        assert!(complete(&*store, intent.clone(), image.clone()).await);
        let record = store.image(&image).await.unwrap().unwrap();
        assert_eq!((record.id, record.image), (intent.id, Some(image)));
    }
}

async fn a_deletion_keeps_its_first_time(backend: impl Backend) {
    let store = records(&backend);
    let (id, image) = upload(&*store, intent(origin("alice", None))).await;
    assert!(delete(&*store, id, at(1)).await);
    assert!(!delete(&*store, id, at(2)).await);
    assert!(!delete(&*store, new_id(), at(3)).await);
    let record = record(&*store, id).await.unwrap();
    assert_eq!(
        (record.image, record.deleted_at),
        (Some(image), Some(at(1)))
    );
}

async fn an_image_is_observed_until_it_is_deleted(backend: impl Backend) {
    let store = records(&backend);
    let facts = |size| FileFacts {
        mime_type: Some("image/webp".to_owned()),
        size: Some(size),
    };
    let (id, image) = upload(&*store, intent(origin("alice", None))).await;
    assert!(settle(&*store, id, UploadState::Ready, facts(5)).await);
    let ready = store.image(&image).await.unwrap().unwrap();
    assert_eq!((ready.state, ready.real), (UploadState::Ready, facts(5)));
    // What Imgwire does not report stays.
    let unknown = FileFacts::default();
    assert!(settle(&*store, id, UploadState::Quarantined, unknown).await);
    let record = store.image(&image).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.real),
        (UploadState::Quarantined, facts(5))
    );

    delete(&*store, id, at(1)).await;
    assert!(!settle(&*store, id, UploadState::Ready, facts(6)).await);
    let intent = Arc::new(self::intent(origin("alice", None)));
    assert!(begin(&*store, intent.clone()).await);
    assert!(!settle(&*store, intent.id, UploadState::Ready, facts(6)).await);
    for (id, state, real) in [
        (id, UploadState::Deleted, facts(5)),
        (intent.id, UploadState::Requested, FileFacts::default()),
    ] {
        let record = self::record(&*store, id).await.unwrap();
        assert_eq!((record.state, record.real), (state, real));
    }
}

async fn a_token_is_recorded_and_linked_to_its_first_image(backend: impl Backend) {
    let store = records(&backend);
    let (id, token) = (new_id(), TokenId::parse("tok_1").unwrap());
    let origin = origin("alice", Some("ws_1"));
    store
        .issued(id, origin.clone(), token.clone())
        .await
        .unwrap();
    let query = RecordQuery {
        token: Some(token.clone()),
        ..RecordQuery::default()
    };
    let issued = Record {
        id,
        origin,
        image: None,
        token: Some(token),
        real: FileFacts::default(),
        state: UploadState::Issued,
        deleted_at: None,
    };
    let found = store.find(query, FIRST).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&issued));
    let image = new_image();
    store.link(id, image.clone()).await.unwrap();
    store.link(id, new_image()).await.unwrap();
    let linked = Record {
        image: Some(image.clone()),
        state: UploadState::Open,
        ..issued
    };
    assert_eq!(store.image(&image).await.unwrap(), Some(linked));
    delete(&*store, id, at(1)).await;
    assert_eq!(store.image(&image).await.unwrap(), None);
}

async fn due_intents_are_taken_by_one_gate_and_due_again_later(backend: impl Backend) {
    let store = records(&backend);
    let mut begun = Vec::new();
    for due in [10, 20, 30] {
        let intent = Arc::new(Intent {
            due_at: at(due),
            origin: Origin {
                purpose: Some(Purpose::parse("avatar").unwrap()),
                ..origin("alice", Some("ws_1"))
            },
            ..(*with_slot(u8::try_from(due).unwrap(), 1)).clone()
        });
        assert!(begin(&*store, intent.clone()).await);
        begun.push(intent);
    }
    let take = async |now, next, limit| {
        let taken = store.take_due(at(now), at(next), limit).await.unwrap();
        taken.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert!(take(9, 99, 10).await.is_empty());
    let first = store.take_due(at(25), at(50), 1).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].id, begun[0].id);
    assert_eq!(first[0].origin, begun[0].origin);
    assert_eq!(first[0].replay, begun[0].replay);
    assert_eq!(first[0].call, begun[0].call);
    assert_eq!(take(25, 50, 10).await, [begun[1].id]);
    assert!(take(25, 50, 10).await.is_empty());
    let image = new_image();
    assert!(complete(&*store, begun[0].clone(), image).await);
    let mut again = take(50, 90, 10).await;
    again.sort();
    assert_eq!(again, [begun[1].id, begun[2].id]);
}

async fn concurrent_uploads_are_all_recorded(backend: impl Backend) {
    let store = records(&backend);
    let uploads = (0..200).map(|number| {
        let subject = format!("user_{}", number % 7);
        let intent = intent(origin(&subject, None));
        let store = &store;
        async move { (upload(&**store, intent).await, subject) }
    });
    for ((id, image), subject) in join_all(uploads).await {
        let record = store.image(&image).await.unwrap().unwrap();
        assert_eq!(record.id, id);
        assert_eq!(record.origin.subject.as_str(), subject);
    }
}

async fn gates_share_a_secret_that_survives_restarts(backend: impl Backend) {
    let first = {
        let store = records(&backend);
        let secrets = join_all((0..8).map(|_| store.secret())).await;
        let secrets: Vec<_> = secrets.into_iter().map(Result::unwrap).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        secrets[0]
    };
    assert_ne!(first, [0; 32]);
    assert_eq!(records(&backend).secret().await.unwrap(), first);
}

async fn records_survive_a_restart(backend: impl Backend) {
    let begun = with_slot(1, 1);
    let (id, image) = {
        let store = records(&backend);
        assert!(begin(&*store, begun.clone()).await);
        upload(&*store, intent(origin("alice", Some("ws_1")))).await
    };
    let store = records(&backend);
    assert_eq!(store.image(&image).await.unwrap().unwrap().id, id);
    let earlier = store.replayed([1; 32]).await.unwrap().unwrap();
    assert_eq!(earlier.id, begun.id);
}
