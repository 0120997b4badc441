//! Records that several gates share.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use uuid::Uuid;

use crate::{
    backends::{Backend, suite},
    helpers::records::{
        Completed, Ending, EventKind, FileFacts, Intent, NewEvent, ReadRate, RecordId, RecordQuery,
        RecordStore, UploadState,
    },
    pgbouncer::PgBouncer,
    postgres::Postgres,
    record_stores::{
        FIRST, at, begin, complete, intent, new_image, origin, record, records, with_slot,
    },
};

suite! {
    [
        each_due_intent_is_taken_by_one_gate,
        gates_that_begin_one_slot_at_once_record_one_upload,
        gates_that_complete_one_intent_at_once_agree_on_its_image,
        gates_agree_on_a_new_secret,
        each_followed_upload_is_taken_by_one_gate,
        all_gates_together_read_at_most_at_the_rate,
        each_event_is_taken_by_one_gate,
        gates_that_reconcile_at_once_share_one_reconciliation,
    ]:
    in_postgresql: Postgres,
    behind_a_pooler: Pooled,
}

/// A server behind a pooler in transaction mode.
pub(crate) struct Pooled {
    server: Postgres,
    pooler: PgBouncer,
}

impl Backend for Pooled {
    async fn found() -> Option<Self> {
        let server = Postgres::here()?.await;
        let pooler = PgBouncer::before(&server, "transaction", 3)?;
        Some(Self { server, pooler })
    }

    fn url(&self) -> String {
        self.pooler.url()
    }

    async fn empty(&self) {
        Backend::empty(&self.server).await;
    }

    fn go_down(&mut self) {
        self.server.go_down();
    }

    async fn come_up(&mut self) {
        self.server.come_up().await;
    }
}

async fn each_due_intent_is_taken_by_one_gate(backend: impl Backend) {
    let gates: Vec<_> = (0..3).map(|_| records(&backend)).collect();
    for _ in 0..30 {
        let intent = Arc::new(intent(origin("alice", None)));
        assert!(begin(&*gates[0], intent).await);
    }
    let mut taken = HashSet::new();
    // Those that meet at a row take others, and the rest later.
    while taken.len() < 30 {
        let takes = gates.iter().map(|gate| gate.take_due(at(60), at(90), 7));
        for due in join_all(takes).await {
            for Intent { id, .. } in due.unwrap() {
                assert!(taken.insert(id), "it is taken twice");
            }
        }
    }
    assert!(
        gates[1]
            .take_due(at(89), at(99), 7)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(gates[1].take_due(at(90), at(99), 7).await.unwrap().len(), 7);
}

async fn gates_that_begin_one_slot_at_once_record_one_upload(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    let begun = join_all((0..100).map(|number: u8| {
        let gate = &gates[usize::from(number) % gates.len()];
        begin(&**gate, with_slot(1, number))
    }));
    let begun = begun.await.into_iter();
    assert_eq!(begun.filter(|has_begun| *has_begun).count(), 1);
    let all = gates[0].find(RecordQuery::default(), FIRST).await.unwrap();
    assert_eq!(all.len(), 1);
}

async fn gates_that_complete_one_intent_at_once_agree_on_its_image(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    // Begun, and missing.
    for has_begun in [true, false] {
        let intent = with_slot(if has_begun { 1 } else { 2 }, 1);
        if has_begun {
            assert!(begin(&*gates[0], intent.clone()).await);
        }
        let images: Vec<_> = gates.iter().map(|_| new_image()).collect();
        let completed = gates.iter().zip(&images).map(|(gate, image)| {
            let completed = complete(&**gate, intent.clone(), image.clone());
            async move { completed.await.then_some(image.clone()) }
        });
        let completed: Vec<_> = join_all(completed).await.into_iter().flatten().collect();
        assert_eq!(completed.len(), 1);
        let record = record(&*gates[0], intent.id).await.unwrap();
        assert_eq!(record.image.as_ref(), completed.first());
    }
}

async fn gates_agree_on_a_new_secret(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    let secrets = join_all(gates.iter().map(|gate| gate.secret())).await;
    let secrets: HashSet<_> = secrets.into_iter().map(Result::unwrap).collect();
    assert_eq!(secrets.len(), 1);
}

/// Records uploads that are followed from `at(4)` on.
async fn follow(gates: &[Arc<dyn RecordStore>], number: usize) -> HashSet<RecordId> {
    let completed = (0..number).map(|number| {
        let intent = Arc::new(intent(origin("alice", None)));
        let completed = gates[number % gates.len()].complete(intent.clone(), new_image(), at(4));
        async move {
            assert_eq!(completed.await.unwrap(), Completed::Now);
            intent.id
        }
    });
    join_all(completed).await.into_iter().collect()
}

fn rate(limit: u32) -> ReadRate {
    ReadRate {
        limit,
        period: Duration::from_secs(1),
    }
}

async fn each_followed_upload_is_taken_by_one_gate(backend: impl Backend) {
    let gates: Vec<_> = (0..3).map(|_| records(&backend)).collect();
    let followed = follow(&gates, 90).await;
    let mut taken = HashSet::new();
    // Those that meet at a record take others, and the rest later.
    while taken.len() < 90 {
        let takes = gates
            .iter()
            .map(|gate| gate.take_followed(at(10), at(20), 11, rate(1000)));
        for records in join_all(takes).await {
            for record in records.unwrap() {
                assert_eq!(record.state, UploadState::Open);
                assert!(taken.insert(record.id), "it is taken twice");
            }
        }
    }
    assert_eq!(taken, followed);
    let early = gates[1].take_followed(at(19), at(30), 100, rate(1000));
    assert_eq!(early.await.unwrap(), []);
    // What is settled or deleted is not followed, and the gate that took an upload says when it is read again.
    let mut taken = taken.into_iter();
    let (settled, deleted) = (taken.next().unwrap(), taken.next().unwrap());
    let real = FileFacts::default();
    let is_change = gates[0].settle(settled, UploadState::Ready, real, Vec::new());
    assert!(is_change.await.unwrap());
    let deletion = gates[1].delete(deleted, Ending::Deleted, at(11), Vec::new());
    assert!(deletion.await.unwrap());
    let later: Vec<_> = taken.by_ref().take(10).map(|id| (id, at(40))).collect();
    let later = [&later[..], &[(settled, at(12)), (deleted, at(12))]].concat();
    // Gates whose leases have ended may say so at once.
    let reversed = later.iter().rev().copied().collect();
    let (first, second) = join(
        gates[0].follow_later(later),
        gates[1].follow_later(reversed),
    )
    .await;
    first.and(second).unwrap();
    let due = gates[2].take_followed(at(39), at(50), 100, rate(1000));
    let due: HashSet<_> = due.await.unwrap().iter().map(|it| it.id).collect();
    assert_eq!(due, taken.collect());
    let due = gates[2].take_followed(at(40), at(50), 100, rate(1000));
    assert_eq!(due.await.unwrap().len(), 10);
}

async fn all_gates_together_read_at_most_at_the_rate(backend: impl Backend) {
    let gates: Vec<_> = (0..3).map(|_| records(&backend)).collect();
    follow(&gates, 100).await;
    let take = async |now| {
        let followed = gates.iter().map(|gate| async {
            let taken = gate.take_followed(now, at(99), 11, rate(20)).await;
            taken.unwrap().len()
        });
        let other = gates.iter().map(|gate| async {
            let taken = gate.take_reads(now, 3, rate(20)).await.unwrap();
            usize::try_from(taken).unwrap()
        });
        let (followed, other) = join(join_all(followed), join_all(other)).await;
        followed.iter().chain(&other).sum::<usize>()
    };
    let first = at(10);
    assert_eq!(take(first).await, 20);
    assert_eq!(take(first).await, 0);
    assert_eq!(take(first + Duration::from_millis(999)).await, 0);
    assert_eq!(take(first + Duration::from_secs(1)).await, 20);
    // No period has more, wherever it begins.
    let half = first + Duration::from_millis(2500);
    let few = gates[0].take_reads(half, 8, rate(20)).await.unwrap();
    assert_eq!(few, 8);
    assert_eq!(take(half + Duration::from_millis(500)).await, 12);
    assert_eq!(take(half + Duration::from_secs(1)).await, 8);
}

async fn each_event_is_taken_by_one_gate(backend: impl Backend) {
    let gates: Vec<_> = (0..3).map(|_| records(&backend)).collect();
    let event = |kind, second| NewEvent {
        kind,
        at: at(second),
        data: "{}".into(),
    };
    let uploads = follow(&gates, 30).await;
    // Only one of several gates that notice the same change adds its events.
    for id in &uploads {
        let settled = gates.iter().map(|gate| {
            let events = vec![
                event(EventKind::UploadReady, 5),
                event(EventKind::UploadMismatched, 5),
            ];
            gate.settle(*id, UploadState::Ready, FileFacts::default(), events)
        });
        let settled = join_all(settled).await.into_iter().map(Result::unwrap);
        assert_eq!(settled.filter(|is_change| *is_change).count(), 1);
        let deleted = gates.iter().map(|gate| {
            let events = vec![event(EventKind::ImageDeleted, 6)];
            gate.delete(*id, Ending::Deleted, at(6), events)
        });
        let deleted = join_all(deleted).await.into_iter().map(Result::unwrap);
        assert_eq!(deleted.filter(|is_change| *is_change).count(), 1);
    }
    assert_eq!(gates[0].backlog().await.unwrap().events, 90);
    let mut taken = HashSet::new();
    while taken.len() < 90 {
        let takes = gates
            .iter()
            .map(|gate| gate.take_events(at(10), at(20), 13));
        for events in join_all(takes).await {
            for event in events.unwrap() {
                let sequence = match event.kind {
                    EventKind::UploadReady => 1,
                    EventKind::UploadMismatched => 2,
                    _ => 3,
                };
                assert_eq!(event.sequence, sequence);
                assert!(taken.insert(event.id), "it is taken twice");
            }
        }
    }
    // Gates whose leases have ended may finish the same events at once.
    let ids: Vec<_> = taken.into_iter().collect();
    let (delivered, failed) = ids.split_at(60);
    let finished = gates.iter().map(|gate| {
        let failed = failed.iter().map(|id| (*id, at(30))).collect();
        gate.finish_events(delivered.to_vec(), failed)
    });
    for finished in join_all(finished).await {
        finished.unwrap();
    }
    let early = gates[0].take_events(at(29), at(40), 100).await.unwrap();
    assert_eq!(early.len(), 0);
    let again = gates[0].take_events(at(30), at(40), 100).await.unwrap();
    assert_eq!(again.len(), 30);
    assert!(again.iter().all(|event| event.failures == 3));
}

async fn gates_that_reconcile_at_once_share_one_reconciliation(backend: impl Backend) {
    let gates: Vec<_> = (0..4).map(|_| records(&backend)).collect();
    for round in 0..5 {
        let started = gates
            .iter()
            .map(|gate| gate.start_reconciliation(Uuid::new_v4()));
        let started: HashSet<_> = join_all(started)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(started.len(), 1);
        let takes = gates
            .iter()
            .map(|gate| gate.take_reconciliation(at(round), at(round + 1)));
        let taken = join_all(takes).await.into_iter().map(Result::unwrap);
        let taken: Vec<_> = taken.flatten().collect();
        assert_eq!(taken.len(), 1);
        assert!(started.contains(&taken[0].id));
        let mut done = taken[0];
        done.progress.done = true;
        gates[1].save_reconciliation(done, at(0)).await.unwrap();
        let known = gates[2].reconciled(done.id).await.unwrap().unwrap();
        assert!(known.done);
    }
}
