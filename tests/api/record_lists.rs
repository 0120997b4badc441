//! Lists of records, and the end of old ones: one suite, with one line for each store.

use std::sync::Arc;

use policies::{ImageId, SubjectId, TokenId, WorkspaceId};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{
        Holder, ImagePage, Origin, Page, Record, RecordId, RecordQuery, RecordStore, UploadState,
    },
    postgres::Postgres,
    record_stores::{
        FIRST, at, begin, complete, delete, intent, new_id, new_image, origin, records, upload,
    },
};

suite! {
    [
        images_are_listed_in_pages_with_the_newest_first,
        lists_of_different_holders_do_not_mix,
        only_images_that_exist_are_listed,
        records_are_found_by_all_parts_of_a_query,
        records_are_found_in_pages_with_the_newest_first,
        all_records_are_exported_with_the_oldest_first,
        old_records_of_deleted_images_and_of_tokens_are_removed,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

fn subject(id: &str) -> Holder {
    Holder::Subject(SubjectId::parse(id).unwrap())
}

fn workspace(id: &str) -> Holder {
    Holder::Workspace(WorkspaceId::parse(id).unwrap())
}

async fn list(store: &dyn RecordStore, holder: Holder, number: u64, size: u32) -> ImagePage {
    store.images(holder, Page { number, size }).await.unwrap()
}

async fn images_are_listed_in_pages_with_the_newest_first(backend: impl Backend) {
    let store = records(&backend);
    let mut images = Vec::new();
    for number in 0..25 {
        // Uploads of several members, and of other workspaces, in between.
        let member = format!("user_{}", number % 3);
        let (id, image) = upload(&*store, intent(origin(&member, Some("ws_1")))).await;
        upload(&*store, intent(origin(&member, Some("ws_2")))).await;
        match number {
            4 | 11 | 24 => _ = delete(&*store, id, at(1)).await,
            _ => images.push(image),
        }
    }
    images.reverse();
    for number in 1..=4 {
        let page = list(&*store, workspace("ws_1"), number, 10).await;
        let skipped = usize::try_from(number - 1).unwrap() * 10;
        let expected: Vec<_> = images.iter().skip(skipped).take(10).cloned().collect();
        assert_eq!((page.images, page.total), (expected, 22), "{number}");
    }
    let beyond = list(&*store, workspace("ws_1"), u64::MAX, u32::MAX).await;
    assert_eq!((beyond.images, beyond.total), (vec![], 22));
    let none = list(&*store, workspace("ws_3"), 1, 10).await;
    assert_eq!(none, ImagePage::default());
}

async fn lists_of_different_holders_do_not_mix(backend: impl Backend) {
    let store = records(&backend);
    let mut images = Vec::new();
    for (user, of) in [
        ("alice", None),
        ("bob", None),
        ("alice", Some("ws_1")),
        ("alice", Some("ws_2")),
        ("bob", Some("ws_1")),
        // A workspace with the name of a user.
        ("bob", Some("alice")),
    ] {
        images.push(upload(&*store, intent(origin(user, of))).await.1);
    }
    let of = |numbers: &[usize]| -> Vec<ImageId> {
        numbers
            .iter()
            .map(|number| images[*number].clone())
            .collect()
    };
    for (holder, expected) in [
        (subject("alice"), of(&[0])),
        (subject("bob"), of(&[1])),
        (subject("ws_1"), vec![]),
        (workspace("ws_1"), of(&[4, 2])),
        (workspace("ws_2"), of(&[3])),
        (workspace("alice"), of(&[5])),
        (workspace("bob"), vec![]),
        (subject("Alice"), vec![]),
    ] {
        let page = list(&*store, holder.clone(), 1, 10).await;
        assert_eq!(page.total, expected.len() as u64, "{holder:?}");
        assert_eq!(page.images, expected, "{holder:?}");
    }
}

async fn only_images_that_exist_are_listed(backend: impl Backend) {
    let store = records(&backend);
    let requested = Arc::new(intent(origin("alice", None)));
    assert!(begin(&*store, requested.clone()).await);
    let token = new_id();
    let issued = store.issued(token, origin("alice", None), TokenId::parse("t").unwrap());
    issued.await.unwrap();
    let listed = async || list(&*store, subject("alice"), 1, 10).await;
    assert_eq!(listed().await, ImagePage::default());
    let (first, second) = (new_image(), new_image());
    assert!(complete(&*store, requested.clone(), first.clone()).await);
    store.link(token, second.clone()).await.unwrap();
    let page = listed().await;
    assert_eq!((page.images, page.total), (vec![second.clone(), first], 2));
    delete(&*store, requested.id, at(1)).await;
    let page = listed().await;
    assert_eq!((page.images, page.total), (vec![second], 1));
    delete(&*store, token, at(1)).await;
    assert_eq!(listed().await, ImagePage::default());
}

fn ids(records: Vec<Record>) -> Vec<RecordId> {
    records.into_iter().map(|record| record.id).collect()
}

async fn records_are_found_by_all_parts_of_a_query(backend: impl Backend) {
    let store = records(&backend);
    let begun = Arc::new(intent(origin("alice", Some("ws_1"))));
    assert!(begin(&*store, begun.clone()).await);
    let (open, image) = upload(&*store, intent(origin("alice", Some("ws_1")))).await;
    let (deleted, deleted_image) = upload(&*store, intent(origin("bob", Some("ws_1")))).await;
    delete(&*store, deleted, at(1)).await;
    let (token, issued) = (TokenId::parse("tok_1").unwrap(), new_id());
    let recorded = store.issued(issued, origin("alice", None), token.clone());
    recorded.await.unwrap();

    let query = |image: Option<&ImageId>, token: Option<&TokenId>, user: &str, of: &str| {
        let (user, of) = (SubjectId::parse(user), WorkspaceId::parse(of));
        RecordQuery {
            image: image.cloned(),
            token: token.cloned(),
            subject: user.ok(),
            workspace: of.ok(),
        }
    };
    for (query, expected) in [
        (query(Some(&image), None, "", ""), vec![open]),
        (query(Some(&deleted_image), None, "", ""), vec![deleted]),
        (query(Some(&new_image()), None, "", ""), vec![]),
        (query(None, Some(&token), "", ""), vec![issued]),
        (query(None, None, "alice", ""), vec![issued, open, begun.id]),
        (query(None, None, "", "ws_1"), vec![deleted, open, begun.id]),
        (query(None, None, "alice", "ws_1"), vec![open, begun.id]),
        (query(None, None, "bob", "ws_2"), vec![]),
        (query(Some(&image), None, "bob", ""), vec![]),
        (query(Some(&image), Some(&token), "", ""), vec![]),
        (query(Some(&image), None, "alice", "ws_1"), vec![open]),
        (
            query(None, None, "", ""),
            vec![issued, deleted, open, begun.id],
        ),
    ] {
        let found = store.find(query.clone(), FIRST).await.unwrap();
        assert_eq!(ids(found), expected, "{query:?}");
    }
}

async fn records_are_found_in_pages_with_the_newest_first(backend: impl Backend) {
    let store = records(&backend);
    let mut all = Vec::new();
    for number in 0..9 {
        let intent = intent(origin("alice", None));
        all.push(intent.id);
        // Some stay intents.
        if number % 3 == 0 {
            assert!(begin(&*store, Arc::new(intent)).await);
        } else {
            upload(&*store, intent).await;
        }
    }
    all.reverse();
    let query = RecordQuery {
        subject: Some(SubjectId::parse("alice").unwrap()),
        ..RecordQuery::default()
    };
    for (number, expected) in [(1, &all[..4]), (2, &all[4..8]), (3, &all[8..]), (4, &[])] {
        let page = Page { number, size: 4 };
        let found = store.find(query.clone(), page).await.unwrap();
        assert_eq!(ids(found), expected, "{number}");
    }
}

async fn all_records_are_exported_with_the_oldest_first(backend: impl Backend) {
    let store = records(&backend);
    // Written in another order than created.
    let mut created: Vec<_> = (0..10).map(|_| intent(origin("alice", None))).collect();
    let all: Vec<_> = created.iter().map(|intent| intent.id).collect();
    created.swap(0, 9);
    created.swap(3, 5);
    for (number, intent) in created.into_iter().enumerate() {
        match number % 3 {
            0 => assert!(begin(&*store, Arc::new(intent)).await),
            1 => {
                let (id, _) = upload(&*store, intent).await;
                delete(&*store, id, at(1)).await;
            }
            _ => _ = upload(&*store, intent).await,
        }
    }
    let mut exported = Vec::new();
    loop {
        let page = store.export(exported.last().copied(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        exported.extend(ids(page));
    }
    assert_eq!(exported, all);
}

async fn old_records_of_deleted_images_and_of_tokens_are_removed(backend: impl Backend) {
    let store = records(&backend);
    let mut kept = Vec::new();
    let begun = Arc::new(intent(origin("alice", None)));
    assert!(begin(&*store, begun.clone()).await);
    kept.push(begun.id);
    kept.push(upload(&*store, intent(origin("alice", None))).await.0);
    for seconds in [1, 2, 10] {
        let (id, _) = upload(&*store, intent(origin("alice", None))).await;
        delete(&*store, id, at(seconds)).await;
        let token = new_id();
        let origin = Origin {
            created_at: at(seconds),
            ..origin("alice", None)
        };
        let issued = store.issued(token, origin, TokenId::parse("t").unwrap());
        issued.await.unwrap();
        if seconds == 2 {
            let image = ImageId::parse("of-a-token").unwrap();
            store.link(token, image).await.unwrap();
            kept.push(token);
        }
        if seconds == 10 {
            kept.extend([id, token]);
        }
    }
    for (limit, removed) in [(2, 2), (2, 1), (2, 0)] {
        assert_eq!(store.remove_old(at(10), limit).await.unwrap(), removed);
    }
    let left = store.export(None, 100).await.unwrap();
    assert_eq!(left[1].state, UploadState::Open);
    assert_eq!(ids(left), kept);
}
