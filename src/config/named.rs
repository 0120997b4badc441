//! Sections of tables that each have a name, such as `[policies.NAME]`.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::{
    document::{Reader, Value, join},
    fault::unknown,
};

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
            format!("expected tables with a name each; write [{section}.NAME]"),
        );
        return Vec::new();
    };
    let mut tables: Vec<_> = tables.into_iter().collect();
    tables.sort_by_key(|(key, _)| key.span().start);
    let entries = tables.into_iter().filter_map(|(key, value)| {
        let key = key.into_inner();
        let path = join(section, &key);
        let header = match value.get_ref() {
            DeValue::Table(_) => None,
            DeValue::Array(_) => Some(format!("[{path}]")),
            _ => Some(format!(
                "it below a header with a name, such as [{section}.NAME]"
            )),
        };
        if let Some(header) = header {
            reader.fault(path, format!("expected a table; write {header}"));
            return None;
        }
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

/// Takes the kind out of a table. `what` is for example `policy kind`.
pub(crate) fn take_kind(
    reader: &mut Reader,
    path: &str,
    value: &mut Value<'_>,
    what: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<String> {
    let DeValue::Table(table) = value.get_mut() else {
        reader.fault(path, format!("expected a table; write [{path}]"));
        return None;
    };
    let kind = table.remove("kind");
    if kind.is_none() && table.contains_key("type") {
        let path = join(path, "type");
        reader.fault(path, unknown("key", "type", ["kind"]));
        return None;
    }
    let name = kind.as_ref().and_then(|kind| kind.get_ref().as_str());
    if name.is_none() {
        let known: Vec<_> = known.map(|name| format!("{name:?}")).collect();
        let problem = if kind.is_none() {
            "is required"
        } else {
            "expected a string"
        };
        let message = format!("{problem}; write the {what}, one of {}", known.join(", "));
        reader.fault(join(path, "kind"), message);
    }
    name.map(str::to_owned)
}
