//! Random changes of records have the effect that they have on plain values in memory, and the storage that is held equals
//! the sum of what they hold: one suite, with one line for each store.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix_web::rt::System;
use policies::{Counter, ImageId, StorageCharge, StorageLimits, StorageUsed, SubjectId};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::records::{
        Begun, FileFacts, Holder, Intent, Page, RecordId, RecordQuery, RecordStore, Replay,
        UploadState,
    },
    postgres::Postgres,
    quota_stores::counter,
    record_storage::{UNLIMITED, charge, held},
    record_stores::{at, complete, delete, intent, new_image, origin, settle},
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
    /// With this size, if Imgwire reports one. Perhaps the upload stays open.
    Settle(bool, Option<u64>),
    /// In these of the counters.
    Recount([bool; 2]),
    Follow,
    Delete,
    Remove,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        4 => any::<bool>().prop_map(Step::Complete),
        1 => Just(Step::Withdraw),
        2 => (prop::bool::weighted(0.3), prop::option::of(0..50u64))
            .prop_map(|(stays_open, size)| Step::Settle(stays_open, size)),
        1 => any::<[bool; 2]>().prop_map(Step::Recount),
        1 => Just(Step::Follow),
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
    bytes: u64,
    is_followed: bool,
    counters: Vec<Counter>,
}

impl Plain {
    /// What it holds in each of its counters.
    fn held(&self) -> Option<StorageUsed> {
        let is_open = match self.state {
            UploadState::Deleted => return None,
            UploadState::Requested => true,
            UploadState::Open => self.is_followed,
            _ => false,
        };
        Some(StorageUsed {
            bytes: self.bytes,
            images: 1,
            open: is_open.into(),
        })
    }

    fn exists(&self) -> bool {
        self.image.is_some() && self.state != UploadState::Deleted
    }
}

/// Of the counters `space` by user, and `total`. The user has a limit.
const LIMITS: StorageLimits = StorageLimits {
    max_bytes: Some(90),
    max_images: Some(3),
    max_open: 2,
};

fn charges(number: usize, user: &str) -> Vec<StorageCharge> {
    let (own, all) = (
        charge("space", user, LIMITS),
        charge("total", "", UNLIMITED),
    );
    match number {
        0 => vec![],
        1 => vec![own],
        2 => vec![all],
        _ => vec![own, all],
    }
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
            let mut origin = origin(user, None);
            origin.declared.size = (number != 4).then_some(number as u64 * 10);
            Arc::new(Intent {
                charges: charges(number, user).into(),
                replay: (slot < 2).then_some(Replay {
                    slot: [slot; 32],
                    parameters: [9; 32],
                }),
                ..intent(origin)
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

    fn held(&self, counter: &Counter) -> StorageUsed {
        let counted = self.plain.values();
        let counted = counted.filter(|plain| plain.counters.contains(counter));
        let mut sum = StorageUsed::default();
        for held in counted.filter_map(Plain::held) {
            sum.bytes += held.bytes;
            sum.images += held.images;
            sum.open += held.open;
        }
        sum
    }

    fn fits(&self, number: usize) -> bool {
        let bytes = self.intents[number].origin.declared.size.unwrap_or(0);
        let mut charges = self.intents[number].charges.iter();
        charges.all(|it| it.check(self.held(&it.counter), bytes).is_none())
    }

    /// The upload as it begins.
    fn begun(&self, number: usize, slot: Option<u8>) -> Plain {
        let intent = &self.intents[number];
        let charges = intent.charges.iter();
        Plain {
            state: UploadState::Requested,
            image: None,
            slot,
            bytes: intent.origin.declared.size.unwrap_or(0),
            is_followed: false,
            counters: charges.map(|it| it.counter.clone()).collect(),
        }
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
                let begins = is_free && !self.plain.contains_key(&id) && self.fits(number);
                if begins {
                    self.plain.insert(id, self.begun(number, slot));
                }
                return Some(begins);
            }
            Step::Complete(of) => {
                let image = Some(self.images[number][usize::from(of)].clone());
                let begun = self.begun(number, slot);
                let plain = self.plain.entry(id).or_insert(begun);
                if plain.state == UploadState::Requested {
                    (plain.state, plain.image) = (UploadState::Open, image.clone());
                    plain.is_followed = true;
                }
                return Some(plain.state != UploadState::Deleted && plain.image == image);
            }
            Step::Withdraw => {
                let is_intent = |plain: &Plain| plain.state == UploadState::Requested;
                if self.plain.get(&id).is_some_and(is_intent) {
                    self.plain.remove(&id);
                }
            }
            Step::Settle(stays_open, size) => {
                let plain = self.plain.get_mut(&id);
                let Some(plain) = plain.filter(|plain| plain.exists()) else {
                    return Some(false);
                };
                plain.bytes = size.unwrap_or(plain.bytes);
                plain.is_followed &= stays_open;
                let state = settled(stays_open);
                let before = std::mem::replace(&mut plain.state, state);
                return Some(before != state);
            }
            Step::Recount(of) => {
                let plain = self.plain.get_mut(&id);
                let Some(plain) = plain.filter(|plain| plain.exists()) else {
                    return Some(false);
                };
                let counters = counters(of);
                let before = std::mem::replace(&mut plain.counters, counters.clone());
                return Some(before != counters);
            }
            Step::Follow => {
                let plain = self.plain.get_mut(&id);
                if let Some(plain) = plain.filter(|plain| plain.exists()) {
                    plain.is_followed = true;
                }
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

fn settled(stays_open: bool) -> UploadState {
    match stays_open {
        true => UploadState::Open,
        false => UploadState::Ready,
    }
}

/// Those of a recount. All users share them.
fn counters(of: [bool; 2]) -> Vec<Counter> {
    let all = [counter("space", "bob"), counter("total", "")];
    let chosen = all.into_iter().zip(of).filter(|(_, is_chosen)| *is_chosen);
    chosen.map(|(counter, _)| counter).collect()
}

async fn make(store: &dyn RecordStore, model: &Model, number: usize, step: Step) -> Option<bool> {
    let intent = model.intents[number].clone();
    let id = intent.id;
    let image = |of| model.images[number][usize::from(of)].clone();
    match step {
        Step::Begin => {
            let begun = store.begin(intent).await.unwrap();
            return Some(begun == Begun::Recorded(vec![]));
        }
        Step::Complete(of) => return Some(complete(store, intent, image(of)).await),
        Step::Withdraw => store.withdraw(id).await.unwrap(),
        Step::Settle(stays_open, size) => {
            let mime_type = None;
            let real = FileFacts { mime_type, size };
            return Some(settle(store, id, settled(stays_open), real).await);
        }
        Step::Recount(of) => return Some(store.recount(id, counters(of)).await.unwrap()),
        Step::Follow => store.follow(id, at(70)).await.unwrap(),
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
    for (policy, key) in [("space", "alice"), ("space", "bob"), ("total", "")] {
        let held = held(store, policy, key).await;
        prop_assert_eq!(
            held,
            model.held(&counter(policy, key)),
            "{} {}",
            policy,
            key
        );
    }
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
