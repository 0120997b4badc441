//! Records that several gates share.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::join_all;

use crate::{
    backends::{Backend, suite},
    helpers::records::{Intent, RecordQuery},
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
    ]:
    in_postgresql: Postgres,
    behind_a_pooler: Pooled,
}

/// A server behind a pooler in transaction mode.
struct Pooled {
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
