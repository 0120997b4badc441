//! Reads a TOML document table by table. It reports every fault, each with its key and position.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    mem,
    ops::Range,
};

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{
    fault::{Fault, Faults, lines},
    files::ReadFiles,
    variables::Replaced,
};

/// A value of the document with its position.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// Keys of earlier versions, with their new names.
const RENAMED: [(&str, &str); 1] = [("imgwire.breaker.open", "probe")];

#[derive(Default)]
pub(crate) struct Reader {
    /// The position of each key by its path, for example `policies.member.roles`, or `policies.member.roles[0]` for an
    /// element.
    positions: HashMap<String, Range<usize>>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Fault>,
    /// The files that the config names.
    pub(crate) files: ReadFiles,
    /// How many of the faults are files that are missing or empty.
    absent_files: usize,
    pub(super) replaced: Vec<Replaced>,
}

impl Reader {
    /// Records a fault of the key at `path`, or of the table that lacks it.
    pub(crate) fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let fault = self.at(path.into(), message.into());
        self.faults.push(fault);
    }

    /// Records a fault that may go away by itself: a file that is missing or empty.
    pub(crate) fn absent_file(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.absent_files += 1;
        self.fault(path, message);
    }

    /// All faults, for a config that cannot be used.
    pub(crate) fn into_faults(self, file: &str, text: &str) -> Faults {
        let is_temporary = self.absent_files > 0 && self.absent_files == self.faults.len();
        Faults {
            lines: lines(file, text, self.faults, &self.replaced),
            files: self.files,
            is_temporary,
        }
    }

    /// Takes the warnings of a config that can be used, one line for each.
    pub(crate) fn take_warnings(&mut self, file: &str, text: &str) -> Faults {
        let warnings = mem::take(&mut self.warnings);
        Faults {
            lines: lines(file, text, warnings, &self.replaced),
            ..Faults::default()
        }
    }

    /// Records a setting that is valid, but rarely intended.
    pub(crate) fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let warning = self.at(path.into(), message.into());
        self.warnings.push(warning);
    }

    fn at(&self, path: String, message: String) -> Fault {
        Fault {
            span: self.position(&path),
            key: path,
            message,
        }
    }

    /// The position of a key, or of the innermost table around it that exists.
    fn position(&self, mut path: &str) -> Range<usize> {
        loop {
            if let Some(position) = self.positions.get(path) {
                return position.clone();
            }
            let Some(end) = path.rfind(['.', '[']) else {
                return 0..0;
            };
            path = &path[..end];
        }
    }

    fn record_positions(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            self.positions.insert(path.clone(), value.span());
            self.record_positions_within(&path, value);
        }
    }

    fn record_positions_within(&mut self, path: &str, value: &Value<'_>) {
        match value.get_ref() {
            DeValue::Table(table) => self.record_positions(path, table),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.positions.insert(path.clone(), element.span());
                    self.record_positions_within(&path, element);
                }
            }
            _ => {}
        }
    }

    /// Records the names in a list that have a `fault` or are listed twice.
    pub(crate) fn names<N: Eq + Hash + fmt::Display>(
        &mut self,
        path: &str,
        names: &[N],
        fault: impl Fn(&N) -> Option<String>,
    ) {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let twice = || format!("`{name}` is listed twice");
            let is_new = seen.insert(name);
            if let Some(message) = fault(name).or_else(|| (!is_new).then(twice)) {
                self.fault(format!("{path}[{index}]"), message);
            }
        }
    }

    pub(crate) fn has_fault(&self, path: &str) -> bool {
        self.faults.iter().any(|fault| {
            let rest = fault.key.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Records all syntax errors, and returns the part of the document that could be read.
    pub(crate) fn parse<'t>(&mut self, text: &'t str) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            self.faults.push(Fault {
                span: error.span().unwrap_or(0..0),
                key: String::new(),
                message: error.message().to_owned(),
            });
        }
        let table = table.into_inner();
        self.record_positions("", &table);
        table
    }

    /// Reads a table as a `T`; `path` is its dotted name. serde stops at the first faulty key, so this records the
    /// fault, removes the key and reads the rest again. It returns what is left if that makes a `T`, so that the caller
    /// can check it against other tables.
    pub(crate) fn table<T: DeserializeOwned + JsonSchema>(
        &mut self,
        path: &str,
        mut value: Value<'_>,
    ) -> Option<T> {
        let faults_before = self.faults.len();
        let DeValue::Table(_) = value.get_ref() else {
            self.fault(path, "must be a table");
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
                    self.fault(join(path, &key), "is required");
                }
            }
            let at = error.span();
            let DeValue::Table(table) = value.get_mut() else {
                return None;
            };
            let faulty = at.as_ref().and_then(|at| remove_at(table, at.start));
            if let (Some(span), Some(key)) = (at, faulty) {
                let key = join(path, &key);
                let message = match RENAMED.iter().find(|(before, _)| *before == key) {
                    Some((_, new_name)) => format!("was renamed to `{new_name}`"),
                    None => error.message().to_owned(),
                };
                self.faults.push(Fault { span, key, message });
            } else {
                // The fault is not in one key: a removed key caused it, or the keys contradict each other.
                if self.faults.len() == faults_before {
                    self.fault(path, error.message());
                }
                return None;
            }
        }
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The path of a key of the table at `path`. An empty key is the table itself.
pub(crate) fn within(path: &str, key: &str) -> String {
    if key.is_empty() {
        path.to_owned()
    } else {
        join(path, key)
    }
}

/// The keys that a table requires and does not have.
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

/// Removes the innermost key at `offset`, and returns its path.
fn remove_at(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(found) = remove_at(inner, offset)
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

pub(crate) type Named<N, T> = (N, Option<T>);

/// Reads a section of named tables, in the order of the file.
pub(crate) fn named<'t, N, T>(
    reader: &mut Reader,
    document: &mut DeTable<'t>,
    section: &str,
    read: impl Fn(&mut Reader, &str, Value<'t>) -> Option<T>,
) -> Vec<Named<N, T>>
where
    N: TryFrom<String, Error: fmt::Display>,
{
    let Some(value) = document.remove(section) else {
        return Vec::new();
    };
    let DeValue::Table(tables) = value.into_inner() else {
        reader.fault(
            section,
            format!("must contain tables; write [{section}.NAME]"),
        );
        return Vec::new();
    };
    let mut tables: Vec<_> = tables.into_iter().collect();
    tables.sort_by_key(|(key, _)| key.span().start);
    let entries = tables.into_iter().filter_map(|(key, value)| {
        let key = key.into_inner();
        let path = join(section, &key);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !key.bytes().all(allowed) {
            let message = "the name must contain only letters, digits and any of -_.";
            reader.fault(path, message);
            return None;
        }
        match N::try_from(key.into_owned()) {
            Ok(name) => Some((name, read(reader, &path, value))),
            Err(fault) => {
                reader.fault(path, format!("the name {fault}"));
                None
            }
        }
    });
    entries.collect()
}

pub(crate) fn take_kind(reader: &mut Reader, path: &str, value: &mut Value<'_>) -> Option<String> {
    let DeValue::Table(table) = value.get_mut() else {
        reader.fault(path, "must be a table");
        return None;
    };
    let Some(kind) = table.remove("kind") else {
        reader.fault(join(path, "kind"), "is required");
        return None;
    };
    let name = kind.get_ref().as_str().map(str::to_owned);
    if name.is_none() {
        reader.fault(join(path, "kind"), "must be a string");
    }
    name
}
