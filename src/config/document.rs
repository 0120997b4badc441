//! Reads a TOML document table by table. It reports every fault, each with its key and position.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    mem,
    ops::Range,
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{
    fault::{Fault, Faults, lines, unknown},
    files::ReadFiles,
    schema_forms::Names,
    shape::{Reference, Shape, schema_of},
    suggestion::Syntax,
    syntax,
    variables::{Replaced, Replacement, is_within},
};

pub(crate) use super::places::join;

/// A value of the document with its position.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

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
    /// The names of the tables of sections.
    names: Names,
    /// The keys of the sections that are no tables of names.
    pub(crate) keys: Names,
    references: Vec<Reference>,
    /// Required keys that are there by a similar name.
    misspelt: HashSet<String>,
    pub(crate) syntax: Syntax,
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

    /// Whether the config has this key.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.positions.contains_key(path)
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

    /// Drops later faults of the keys that the first faults are about.
    pub(crate) fn drop_consequences(&mut self, first: usize) {
        let later = self.faults.split_off(first);
        let is_new = |fault: &Fault| {
            let mut causes = self.faults.iter().map(|cause| &cause.key);
            !causes.any(|cause| is_within(cause, &fault.key) || is_within(&fault.key, cause))
        };
        let later: Vec<_> = later.into_iter().filter(is_new).collect();
        self.faults.extend(later);
    }

    pub(crate) fn has_fault(&self, path: &str) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| path.is_empty() || is_within(&fault.key, path))
    }

    /// Records all syntax errors, and returns the part of the document that could be read.
    pub(crate) fn parse<'t>(&mut self, text: &'t str) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            self.faults.extend(syntax::faults(text));
        }
        let table = table.into_inner();
        self.record_positions("", &table);
        table
    }

    /// Replaces environment variables in all strings of the document.
    pub(crate) fn replace_variables(
        &mut self,
        document: &mut DeTable<'_>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) {
        for (key, value) in document.iter_mut() {
            let mut replacement = Replacement::default();
            replacement.replace(key.get_ref(), value.get_mut(), environment);
            self.replaced.extend(replacement.replaced);
            for (path, message) in replacement.faults {
                self.fault(path, message);
            }
        }
    }

    /// Reads a table as a `T`; `path` is its dotted name. Returns what is left without faulty keys if that makes a `T`, so
    /// that the caller can check it against other tables.
    pub(crate) fn table<T: DeserializeOwned + JsonSchema>(
        &mut self,
        path: &str,
        mut value: Value<'_>,
    ) -> Option<T> {
        if !self.check_shape(path, &schema_of::<T>(), &mut value) {
            return None;
        }
        // What fits the schema may still be rejected. serde stops at the first such key, so this records the fault,
        // removes the key and reads the rest again.
        loop {
            let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let at = error.span();
            let DeValue::Table(table) = value.get_mut() else {
                return None;
            };
            let faulty = at.as_ref().and_then(|at| remove_at(table, at.start));
            if let (Some(span), Some(key)) = (at, faulty) {
                let key = join(path, &key);
                let message = error.message().to_owned();
                // The key may lack another one that was removed.
                if !self.has_fault(&key) {
                    self.faults.push(Fault { span, key, message });
                }
            } else {
                // The fault is not in one key: a removed key caused it, or the keys contradict each other.
                if !self.has_fault(path) {
                    self.fault(path, error.message());
                }
                return None;
            }
        }
    }

    /// Compares a value with a schema. Records a fault for each key that does not fit, and removes the key. Returns
    /// whether the value itself fits.
    pub(crate) fn check_shape(&mut self, path: &str, schema: &Json, value: &mut Value<'_>) -> bool {
        let mut shape = Shape {
            definitions: &schema["$defs"],
            names: &self.names,
            keys: &self.keys,
            replaced: &self.replaced,
            syntax: self.syntax,
            faults: Vec::new(),
            references: Vec::new(),
            misspelt: Vec::new(),
        };
        let fits = shape.visit(path, schema, value);
        let Shape {
            faults,
            references,
            misspelt,
            ..
        } = shape;
        self.misspelt.extend(misspelt);
        for mut fault in faults {
            // A key that an earlier check removed is not missing.
            if self.has_fault(&fault.key) || self.misspelt.contains(&fault.key) {
                continue;
            }
            if fault.span.is_empty() {
                fault.span = self.position(&fault.key);
            }
            self.faults.push(fault);
        }
        self.references.extend(references);
        fits
    }

    /// Notes the names of the tables of a section, which other tables may refer to.
    pub(crate) fn note_names(&mut self, document: &DeTable<'_>, section: &'static str) {
        let tables = document.get(section).and_then(|it| it.get_ref().as_table());
        let mut names: Vec<_> = tables.into_iter().flat_map(|table| table.keys()).collect();
        names.sort_by_key(|name| name.span().start);
        let names = names.into_iter().map(|name| name.get_ref().to_string());
        self.names.insert(section, names.collect());
    }

    /// Records a fault for each name that no table of its section has.
    pub(crate) fn check_names(&mut self) {
        for reference in mem::take(&mut self.references) {
            let Reference {
                mut fault,
                section,
                name,
            } = reference;
            let known = self.names.get(section.as_str()).into_iter().flatten();
            let is_told = self.faults.iter().any(|other| other.key == fault.key);
            if !is_told && !known.clone().any(|known| *known == name) {
                let what = match section.strip_suffix("ies") {
                    Some(stem) => format!("{stem}y"),
                    None => section.trim_end_matches('s').to_owned(),
                };
                fault.message = unknown(&what, &name, known.map(String::as_str));
                self.faults.push(fault);
            }
        }
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
