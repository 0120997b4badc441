//! A TOML document that is read table by table, so that every fault is found and each has its place.

use std::{collections::HashSet, fmt, hash::Hash, mem, ops::Range};

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::fault::Fault;

/// A value of the document with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Keys of earlier versions, with those that took their place.
const RENAMED: [(&str, &str); 1] = [("imgwire.breaker.open", "probe")];

/// Reads tables and collects what is wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

impl Reader {
    /// Notes a fault.
    pub(super) fn fault(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.faults.push(Fault {
            span,
            key: key.into(),
            message: message.into(),
        });
    }

    /// Notes what is possible, and rarely meant.
    pub(super) fn warning(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.warnings.push(Fault {
            span,
            key: key.into(),
            message: message.into(),
        });
    }

    /// Checks a list of names: none twice, and none that `fault` objects to.
    pub(super) fn names<N: Eq + Hash + fmt::Display>(
        &mut self,
        key: &str,
        names: &[Spanned<N>],
        fault: impl Fn(&N) -> Option<String>,
    ) {
        let mut seen = HashSet::new();
        for name in names {
            let twice = || format!("`{}` stands here twice", name.get_ref());
            let is_new = seen.insert(name.get_ref());
            if let Some(message) = fault(name.get_ref()).or_else(|| (!is_new).then(twice)) {
                self.fault(name.span(), key, message);
            }
        }
    }

    /// Whether a fault of `path`, or of a key in it, was noted.
    pub(super) fn has_fault(&self, path: &str) -> bool {
        self.faults.iter().any(|fault| {
            let rest = fault.key.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Parses a document. Syntax errors are all noted; what could be read is returned.
    pub(super) fn parse<'t>(&mut self, text: &'t str) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            self.fault(error.span().unwrap_or(0..0), "", error.message());
        }
        table.into_inner()
    }

    /// Reads a table as a `T`; `path` is its dotted name. Whatever is wrong with it is noted: serde stops
    /// at the first faulty key, so that one is taken out and the rest is read again. What is left is returned
    /// if it makes a `T`, so that it can be checked against other tables.
    pub(super) fn table<T: DeserializeOwned + JsonSchema>(
        &mut self,
        path: &str,
        mut value: Value<'_>,
    ) -> Option<T> {
        let place = value.span();
        let faults_before = self.faults.len();
        let DeValue::Table(_) = value.get_ref() else {
            self.fault(place, path, "must be a table");
            return None;
        };
        let mut is_first = true;
        loop {
            let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            if mem::take(&mut is_first) {
                for key in missing_keys::<T>(&value) {
                    self.fault(place.clone(), join(path, &key), "is required");
                }
            }
            let at = error.span().unwrap_or_else(|| place.clone());
            let DeValue::Table(table) = value.get_mut() else {
                return None;
            };
            if let Some(key) = take_out(table, at.start) {
                let key = join(path, &key);
                let message = match RENAMED.iter().find(|(before, _)| *before == key) {
                    Some((_, successor)) => format!("was renamed; write `{successor}`"),
                    None => error.message().to_owned(),
                };
                self.fault(at, key, message);
            } else {
                // No key's own fault: what a `missing` or an earlier key leads to, or the keys together.
                if self.faults.len() == faults_before {
                    self.fault(place, path, error.message());
                }
                return None;
            }
        }
    }
}

/// Joins two parts of a dotted name.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The keys that a table is to have and has not.
fn missing_keys<T: JsonSchema>(value: &Value<'_>) -> Vec<String> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let required = schema.get("required").and_then(|keys| keys.as_array());
    let required = required.into_iter().flatten();
    let required = required.filter_map(|key| key.as_str());
    let is_there = |key: &str| {
        let table = value.get_ref().as_table();
        table.is_some_and(|table| table.contains_key(key))
    };
    required
        .filter(|key| !is_there(key))
        .map(str::to_owned)
        .collect()
}

/// Takes out the innermost key that `offset` falls on, and returns its name.
fn take_out(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(found) = take_out(inner, offset)
        {
            return Some(join(key.get_ref(), &found));
        }
    }
    let name = table.iter().find_map(|(key, value)| {
        let hit = key.span().contains(&offset) || value.span().contains(&offset);
        hit.then(|| key.get_ref().to_string())
    })?;
    table.remove(name.as_str());
    Some(name)
}
