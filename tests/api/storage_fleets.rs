//! Storage that several gates count in one PostgreSQL database.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use policies::{StorageCharge, StorageLimits};

use crate::{
    backends::{Backend, suite},
    helpers::records::{
        Begun, Completed, Ending, FileFacts, Intent, ReadRate, RecordId, RecordStore, UploadState,
    },
    postgres::Postgres,
    quota_stores::counter,
    record_fleets::Pooled,
    record_storage::{UNLIMITED, charge, charged, held, used},
    record_stores::{at, new_id, new_image, records, with_slot},
};

suite! {
    [
        gates_that_begin_at_once_never_exceed_the_storage,
        storage_equals_the_records_whatever_gates_do_at_once,
        an_upload_begins_while_the_earlier_one_of_its_slot_is_deleted,
    ]:
    in_postgresql: Postgres,
    behind_a_pooler: Pooled,
}

/// The chains of two routes may have the same policies in another order.
fn in_turn(number: usize, mut charges: Vec<StorageCharge>) -> Vec<StorageCharge> {
    if number % 2 == 1 {
        charges.reverse();
    }
    charges
}

async fn gates_that_begin_at_once_never_exceed_the_storage(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    let limits = [
        StorageLimits {
            max_bytes: Some(7 * 25 + 6),
            ..UNLIMITED
        },
        StorageLimits {
            max_images: Some(25),
            ..UNLIMITED
        },
        StorageLimits {
            max_open: 25,
            ..UNLIMITED
        },
    ];
    for (round, limits) in limits.into_iter().enumerate() {
        let user = round.to_string();
        let begun = join_all((0..120).map(|number| {
            let user = charge("a", &user, limits);
            let everyone = charge("b", "", UNLIMITED);
            let intent = charged(7, in_turn(number, vec![user, everyone]));
            gates[number % gates.len()].begin(Arc::new(intent))
        }));
        let mut recorded = 0;
        for begun in begun.await {
            match begun.unwrap() {
                Begun::Recorded(observed) => {
                    assert_eq!(observed, []);
                    recorded += 1;
                }
                Begun::Full(policy, full) => {
                    assert_eq!(policy.as_str(), "a");
                    assert!(full.used <= full.limit, "{full:?}");
                }
                Begun::SlotTaken => panic!("it has no slot"),
            }
        }
        assert_eq!(recorded, 25);
        assert_eq!(held(&*gates[1], "a", &user).await, used(7 * 25, 25, 25));
        let all = 25 * (round as u64 + 1);
        assert_eq!(held(&*gates[2], "b", "").await, used(7 * all, all, all));
    }
}

/// What happens to an upload, by its number. All but the first two leave an image of 5 bytes, or none.
async fn live(gates: &[Arc<dyn RecordStore>], number: usize) -> RecordId {
    let gate = |step: usize| &*gates[(number + step) % gates.len()];
    let key = (number % 3).to_string();
    let charges = vec![
        charge("a", &key, UNLIMITED),
        charge("b", "", UNLIMITED),
        charge("c", &key, UNLIMITED),
    ];
    let intent = Arc::new(charged(10, in_turn(number, charges)));
    let (id, image) = (intent.id, new_image());
    if number % 8 == 1 {
        // The intent is missing.
        let completed = gate(1).complete(intent, image, at(0)).await;
        assert_eq!(completed.unwrap(), Completed::Now);
        return id;
    }
    let begun = gate(0).begin(intent.clone()).await.unwrap();
    assert_eq!(begun, Begun::Recorded(Vec::new()));
    if number.is_multiple_of(8) {
        return id;
    }
    if number % 8 == 2 {
        gate(1).withdraw(id).await.unwrap();
        return id;
    }
    let completed = gate(1).complete(intent, image, at(0)).await;
    assert_eq!(completed.unwrap(), Completed::Now);
    let real = FileFacts {
        mime_type: None,
        size: Some(5),
    };
    let settle = |step: usize| {
        let settled = gate(step).settle(id, UploadState::Ready, real.clone(), Vec::new());
        async { settled.await.map(drop) }
    };
    let delete = |step: usize| {
        let deleted = gate(step).delete(id, Ending::Abandoned, at(9), Vec::new());
        async { deleted.await.map(drop) }
    };
    let recount = |step: usize| {
        let recounted = gate(step).recount(id, vec![counter("c", &key), counter("b", "")]);
        async { recounted.await.map(drop) }
    };
    let (first, second) = match number % 8 {
        3 => join(settle(2), settle(3)).await,
        4 => join(settle(2), delete(3)).await,
        5 => join(recount(2), settle(3)).await,
        6 => join(delete(2), recount(3)).await,
        _ => join(gate(2).remove(id), delete(3)).await,
    };
    first.and(second).unwrap();
    id
}

async fn storage_equals_the_records_whatever_gates_do_at_once(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    join_all((0..240).map(|number| live(&gates, number))).await;
    // Of 8 uploads, two are open, and two were settled, one of them without the policy `a`.
    for (policy, key, settled) in [("a", "0", 10), ("b", "", 60), ("c", "0", 20)] {
        let open = if policy == "b" { 60 } else { 20 };
        let expected = used(open * 10 + settled * 5, open + settled, open);
        let held = held(&*gates[0], policy, key).await;
        assert_eq!(held, expected, "{policy} {key}");
    }
    let all = gates[0].export(None, 1000).await.unwrap();
    for record in all {
        gates[1].remove(record.id).await.unwrap();
    }
    for (policy, key) in [("a", "0"), ("b", ""), ("c", "2")] {
        assert_eq!(held(&*gates[2], policy, key).await, used(0, 0, 0));
    }
}

async fn an_upload_begins_while_the_earlier_one_of_its_slot_is_deleted(backend: impl Backend) {
    let gates: Vec<_> = (0..2).map(|_| records(&backend)).collect();
    let next = || {
        let charges = vec![charge("a", "1", UNLIMITED)].into();
        Arc::new(Intent {
            charges,
            ..(*with_slot(1, 1)).clone()
        })
    };
    let mut intent = next();
    let begun = gates[0].begin(intent.clone()).await.unwrap();
    assert_eq!(begun, Begun::Recorded(Vec::new()));
    for _ in 0..50 {
        let again = next();
        let (begun, deleted) = join(
            gates[0].begin(again.clone()),
            gates[1].delete(intent.id, Ending::Deleted, at(1), Vec::new()),
        )
        .await;
        assert!(deleted.unwrap());
        if begun.unwrap() == Begun::SlotTaken {
            let begun = gates[1].begin(again.clone()).await.unwrap();
            assert_eq!(begun, Begun::Recorded(Vec::new()));
        }
        intent = again;
    }
    assert_eq!(held(&*gates[0], "a", "1").await, used(0, 1, 1));
}

/// The tables as they were before storage was counted, with an old image, a new one, and an upload that was begun.
async fn earlier_tables(server: &Postgres, image: &str) -> [RecordId; 3] {
    let migrations = [
        include_str!("../../src/stores/postgres/migrations/1_quota.sql"),
        include_str!("../../src/stores/postgres/migrations/2_lease.sql"),
        include_str!("../../src/stores/postgres/migrations/3_upload.sql"),
        "insert into imgwire_gate.migration (version) values (1), (2), (3)",
    ];
    for migration in migrations {
        server.run(migration).await;
    }
    let ids = [new_id(), new_id(), new_id()];
    let rows = format!(
        "insert into imgwire_gate.upload \
             (id, subject, route, size, created_at, call, due_at, image, state, exists_now) \
         values ('{}', 'alice', '/imgwire', 7, now() - interval '2 days', null, null, 'img_1', 'open', true), \
                ('{}', 'alice', '/imgwire', 7, now(), null, null, '{image}', 'open', true), \
                ('{}', 'alice', '/imgwire', 7, now(), '{{}}', now(), null, 'requested', false)",
        ids[0].0, ids[1].0, ids[2].0
    );
    server.run(&rows).await;
    ids
}

#[actix_web::test]
async fn records_of_an_earlier_version_are_kept_and_count_once_they_are_counted() {
    let Some(server) = Postgres::here() else {
        return;
    };
    let server = server.await;
    let image = new_image();
    let [old, new, begun] = earlier_tables(&server, image.as_str()).await;
    let store = records(&server);
    let found = store.image(&image).await.unwrap().unwrap();
    assert_eq!((found.id, found.state), (new, UploadState::Open));
    let (far, later) = (at(1_000_000_000), at(1_000_000_060));
    let rate = ReadRate {
        limit: 10,
        period: Duration::from_secs(1),
    };
    let followed = store.take_followed(far, later, 10, rate).await.unwrap();
    assert_eq!(followed, [found]);
    let due = store.take_due(far, later, 10).await.unwrap();
    assert_eq!(due.iter().map(|it| it.id).collect::<Vec<_>>(), [begun]);
    for (id, expected) in [(old, used(7, 1, 0)), (new, used(14, 2, 1))] {
        let recounted = store.recount(id, vec![counter("a", "1")]);
        assert!(recounted.await.unwrap());
        assert_eq!(held(&*store, "a", "1").await, expected);
    }
    // A gate of the earlier version that shares the database deletes an image.
    let charges = vec![charge("a", "1", UNLIMITED)];
    let intent = Arc::new(charged(5, charges));
    let completed = store.complete(intent.clone(), new_image(), at(0)).await;
    assert_eq!(completed.unwrap(), Completed::Now);
    assert_eq!(held(&*store, "a", "1").await, used(19, 3, 2));
    let delete = format!(
        "update imgwire_gate.upload set state = 'deleted', exists_now = false, deleted_at = now() \
         where id = '{}'",
        intent.id.0
    );
    server.run(&delete).await;
    assert_eq!(held(&*store, "a", "1").await, used(14, 2, 1));
    let followed = store.take_followed(far, later, 10, rate).await.unwrap();
    assert_eq!(followed, []);
}
