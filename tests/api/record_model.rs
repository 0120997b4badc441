//! Random changes of records have the effect that they have on plain values in memory: one suite, with one line for each
//! store.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix_web::rt::System;
use policies::{ImageId, SubjectId};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{
        FileFacts, Holder, Intent, Page, RecordId, RecordQuery, RecordStore, Replay, UploadState,
    },
    postgres::Postgres,
    record_stores::{at, begin, complete, delete, intent, new_image, origin, settle},
};

suite! {
    [
        records_change_like_plain_values,
    ]:
    in_sqlite: Sqlite,
    in_postgresql: Postgres,
}

/// A change of one of a few uploads. Some of them share slots.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    /// With the upload's image, or with another one.
    Complete(bool),
    Withdraw,
    Settle,
    Delete,
    Remove,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        4 => any::<bool>().prop_map(Step::Complete),
        1 => Just(Step::Withdraw),
        1 => Just(Step::Settle),
        2 => Just(Step::Delete),
        1 => Just(Step::Remove),
        1 => Just(Step::Reopen),
    ]
}

/// What is known of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    state: UploadState,
    image: Option<ImageId>,
    /// If it has one.
    slot: Option<u8>,
}

const UPLOADS: usize = 6;

struct Model {
    intents: Vec<Arc<Intent>>,
    images: Vec<[ImageId; 2]>,
    plain: BTreeMap<RecordId, Plain>,
}

impl Model {
    /// The uploads 0 and 1 share a slot, and 2 and 3 do. The others have none.
    fn new() -> Self {
        let intents = (0..UPLOADS).map(|number| {
            let slot = u8::try_from(number / 2).unwrap();
            let user = if number % 3 == 0 { "alice" } else { "bob" };
            Arc::new(Intent {
                replay: (slot < 2).then_some(Replay {
                    slot: [slot; 32],
                    parameters: [9; 32],
                }),
                ..intent(origin(user, None))
            })
        });
        Self {
            intents: intents.collect(),
            images: (0..UPLOADS).map(|_| [new_image(), new_image()]).collect(),
            plain: BTreeMap::new(),
        }
    }

    fn slot(&self, number: usize) -> Option<u8> {
        self.intents[number].replay.map(|replay| replay.slot[0])
    }

    fn owner(&self, slot: Option<u8>) -> Option<RecordId> {
        let mut plain = self.plain.iter();
        let owner = plain.find(|(_, plain)| slot.is_some() && plain.slot == slot)?;
        Some(*owner.0)
    }

    /// Makes the change. Returns what the store must return.
    fn change(&mut self, number: usize, step: Step) -> Option<bool> {
        let id = self.intents[number].id;
        let slot = self
            .slot(number)
            .filter(|slot| self.owner(Some(*slot)).is_none());
        match step {
            Step::Begin => {
                let is_free = slot.is_some() || self.slot(number).is_none();
                let begins = is_free && !self.plain.contains_key(&id);
                if begins {
                    let state = UploadState::Requested;
                    let image = None;
                    self.plain.insert(id, Plain { state, image, slot });
                }
                return Some(begins);
            }
            Step::Complete(of) => {
                let image = Some(self.images[number][usize::from(of)].clone());
                let state = UploadState::Open;
                let plain = self.plain.entry(id).or_insert(Plain {
                    state: UploadState::Requested,
                    image: None,
                    slot,
                });
                if plain.state == UploadState::Requested {
                    (plain.state, plain.image) = (state, image.clone());
                }
                return Some(plain.state != UploadState::Deleted && plain.image == image);
            }
            Step::Withdraw => {
                let is_intent = |plain: &Plain| plain.state == UploadState::Requested;
                if self.plain.get(&id).is_some_and(is_intent) {
                    self.plain.remove(&id);
                }
            }
            Step::Settle => {
                let opens = |plain: &&mut Plain| plain.state == UploadState::Open;
                let settled = self.plain.get_mut(&id).filter(opens);
                return Some(settled.map(|it| it.state = UploadState::Ready).is_some());
            }
            Step::Delete => {
                let exists = |plain: &&mut Plain| plain.state != UploadState::Deleted;
                let deleted = self.plain.get_mut(&id).filter(exists);
                let delete = |it: &mut Plain| (it.state, it.slot) = (UploadState::Deleted, None);
                return Some(deleted.map(delete).is_some());
            }
            Step::Remove => _ = self.plain.remove(&id),
            Step::Reopen => {}
        }
        None
    }
}

async fn make(store: &dyn RecordStore, model: &Model, number: usize, step: Step) -> Option<bool> {
    let intent = model.intents[number].clone();
    let id = intent.id;
    let image = |of| model.images[number][usize::from(of)].clone();
    match step {
        Step::Begin => return Some(begin(store, intent).await),
        Step::Complete(of) => return Some(complete(store, intent, image(of)).await),
        Step::Withdraw => store.withdraw(id).await.unwrap(),
        Step::Settle => {
            let real = FileFacts::default();
            return Some(settle(store, id, UploadState::Ready, real).await);
        }
        Step::Delete => return Some(delete(store, id, at(1)).await),
        Step::Remove => store.remove(id).await.unwrap(),
        Step::Reopen => {}
    }
    None
}

async fn compare(store: &dyn RecordStore, model: &Model) -> Result<(), TestCaseError> {
    let query = RecordQuery::default();
    let page = Page { number: 1, size: 3 };
    let mut found = store.find(query.clone(), page).await.unwrap();
    let page = Page { number: 2, size: 3 };
    found.extend(store.find(query, page).await.unwrap());
    let found = found.into_iter().map(|it| (it.id, it.state, it.image));
    let plain = model.plain.iter().rev();
    let plain = plain.map(|(id, it)| (*id, it.state, it.image.clone()));
    prop_assert_eq!(found.collect::<Vec<_>>(), plain.collect::<Vec<_>>());
    for slot in 0..2 {
        let earlier = store.replayed([slot; 32]).await.unwrap();
        prop_assert_eq!(earlier.map(|it| it.id), model.owner(Some(slot)));
    }
    for user in ["alice", "bob"] {
        let user = SubjectId::parse(user).unwrap();
        let exists = |number: &usize| {
            let plain = model.plain.get(&model.intents[*number].id)?;
            let exists = plain.state != UploadState::Deleted;
            plain.image.clone().filter(|_| exists)
        };
        let of_user = |number: &usize| model.intents[*number].origin.subject == user;
        let numbers = (0..UPLOADS).rev().filter(of_user);
        let plain: Vec<_> = numbers.filter_map(|number| exists(&number)).collect();
        let page = Page { number: 1, size: 9 };
        let listed = store
            .images(Holder::Subject(user.clone()), page)
            .await
            .unwrap();
        prop_assert_eq!(listed.total, plain.len() as u64);
        prop_assert_eq!(listed.images, plain);
    }
    Ok(())
}

type Open = Rc<dyn Fn() -> Arc<dyn RecordStore>>;

async fn run(open: Open, steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    let mut store = Some(open());
    for (number, step) in steps {
        if matches!(step, Step::Reopen) {
            store = None;
        }
        let store = &**store.get_or_insert_with(|| open());
        let is_intent = |plain: &Plain| plain.state == UploadState::Requested;
        let known = model.plain.get(&model.intents[*number].id);
        // An upload begins once.
        if matches!(step, Step::Begin) && !known.is_none_or(is_intent) {
            continue;
        }
        let made = make(store, &model, *number, *step).await;
        prop_assert_eq!(made, model.change(*number, *step), "{} {:?}", number, step);
        compare(store, &model).await?;
    }
    Ok(())
}

async fn records_change_like_plain_values(backend: impl Backend + Send) {
    let run_all = move || {
        let steps = prop::collection::vec((0..UPLOADS, step()), 1..40);
        let run = |steps: Vec<(usize, Step)>| {
            System::new().block_on(async {
                backend.empty().await;
                let url = backend.url();
                let open: Open = Rc::new(move || {
                    let uses = [policies::StoreUse::Uploads];
                    let clock = crate::backends::system_clock();
                    let stores = crate::backends::open(&url, &uses, clock);
                    stores.records(&crate::backends::main_store()).unwrap()
                });
                run(open, &steps).await
            })
        };
        TestRunner::new(Config::with_cases(24)).run(&steps, run)
    };
    // On a thread that has no runtime of its own.
    std::thread::scope(|scope| scope.spawn(run_all).join().unwrap()).unwrap();
}
