//! Lists in claims that are too long for an expression.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cel::common::{
    traits::{Adder, Container, Indexer, Iterable, Sizer},
    types::{CelInt, LIST_TYPE, Type},
    value::{BuiltinRef, Val},
};

/// The longest list that an expression can iterate over or search.
pub(crate) const MAX_LIST: usize = 1000;

/// A list that is too long to iterate over or search. Only its length and type can be used. Any other use is recorded,
/// so that the expression fails whatever it does with the result.
#[derive(Clone, Debug)]
pub(crate) struct LongList {
    length: usize,
    used: Arc<AtomicBool>,
}

impl LongList {
    /// `used` is set to true when the list is used.
    pub(crate) fn new(length: usize, used: Arc<AtomicBool>) -> Self {
        Self { length, used }
    }

    fn note_use<T>(&self) -> Option<T> {
        self.used.store(true, Ordering::Relaxed);
        None
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
        self.note_use()
    }

    fn as_container(&self) -> Option<&dyn Container> {
        self.note_use()
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        self.note_use()
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        self.note_use()
    }

    fn equals(&self, _: &dyn Val) -> bool {
        self.note_use().unwrap_or(false)
    }

    /// Another list calls this when it is compared with this one.
    fn as_builtin<'b, 'v>(&'b self) -> BuiltinRef<'b, 'v>
    where
        Self: 'v,
    {
        self.note_use().unwrap_or(BuiltinRef::Other)
    }
}

impl Sizer for LongList {
    fn size(&self) -> CelInt {
        i64::try_from(self.length).unwrap_or(i64::MAX).into()
    }
}
