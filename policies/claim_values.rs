//! Claims as values of expressions: each is made once for a request, however many expressions read it, and however
//! often.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cel::common::{
    traits::{Adder, Container, Indexer, Iterable, Sizer},
    types::{
        CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, LIST_TYPE, Type,
    },
    value::{BuiltinRef, Val},
};
use serde_json::Value;

use crate::Claims;

/// The longest list that an expression walks or searches.
pub(crate) const MAX_LIST: usize = 1000;

/// A value that expressions share.
pub(crate) type Shared = Arc<dyn Val>;

/// A fact that is as large as a token may be. It is known by its address, which stays the same for as long as the
/// facts of a request have their subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Subject,
    Claims,
    Part(usize),
}

impl Key {
    pub(crate) fn part(claim: &Value) -> Self {
        Self::Part(std::ptr::from_ref(claim).addr())
    }
}

/// The values that were made for a request.
#[derive(Default)]
pub(crate) struct ClaimValues {
    made: Mutex<HashMap<Key, Shared>>,
    long_list_used: Arc<AtomicBool>,
}

impl fmt::Debug for ClaimValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimValues")
    }
}

impl ClaimValues {
    /// The value of a fact, which `make` makes if no expression has asked for it before.
    pub(crate) fn get(&self, key: Key, make: impl FnOnce() -> Box<dyn Val>) -> Shared {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(key).or_insert_with(|| make().into()).clone()
    }

    /// Begins to watch for uses of lists that are too long.
    pub(crate) fn watch(&self) {
        self.long_list_used.store(false, Ordering::Relaxed);
    }

    /// Whether such a list was used since then.
    pub(crate) fn has_used_a_long_list(&self) -> bool {
        self.long_list_used.load(Ordering::Relaxed)
    }

    /// Makes a value. Numbers that are whole are `int`, as in the text of an expression.
    pub(crate) fn make(&self, value: &Value) -> Box<dyn Val> {
        match value {
            Value::Null => Box::new(CelNull),
            Value::Bool(value) => Box::new(CelBool::from(*value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Box::new(CelInt::from(number)),
                (None, Some(number)) => Box::new(CelDouble::from(number)),
                (None, None) => Box::new(CelNull),
            },
            Value::String(text) => Box::new(CelString::from(text.clone())),
            Value::Array(values) if values.len() > MAX_LIST => Box::new(LongList {
                length: values.len(),
                used: self.long_list_used.clone(),
            }),
            Value::Array(values) => {
                let values: Vec<_> = values.iter().map(|value| self.make(value)).collect();
                Box::new(CelList::from(values))
            }
            Value::Object(members) => self.make_map(members),
        }
    }

    /// The same of an object.
    pub(crate) fn make_map(&self, members: &Claims) -> Box<dyn Val> {
        map(members
            .iter()
            .map(|(name, value)| (name.as_str(), self.make(value))))
    }
}

/// A map whose keys are texts.
pub(crate) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Box<dyn Val>)>) -> Box<dyn Val> {
    let entries = entries
        .into_iter()
        .map(|(key, value)| (CelMapKey::from(key.to_owned()), value));
    Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
}

/// A list that is too long to be walked or searched. It tells its length and its type. Any other use has no value and
/// is noted, so that it counts whatever the rest of the expression makes of it.
#[derive(Clone, Debug)]
struct LongList {
    length: usize,
    used: Arc<AtomicBool>,
}

impl LongList {
    fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

impl Val for LongList {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        self.note_use();
        None
    }

    fn as_container(&self) -> Option<&dyn Container> {
        self.note_use();
        None
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        self.note_use();
        None
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        self.note_use();
        None
    }

    fn equals(&self, _: &dyn Val) -> bool {
        self.note_use();
        false
    }

    /// What another list asks when it is compared to this one.
    fn as_builtin<'b, 'v>(&'b self) -> BuiltinRef<'b, 'v>
    where
        Self: 'v,
    {
        self.note_use();
        BuiltinRef::Other
    }
}

impl Sizer for LongList {
    fn size(&self) -> CelInt {
        i64::try_from(self.length).unwrap_or(i64::MAX).into()
    }
}
