//! The tables of `docs/configuration.md`.

use serde_json::{Map, Value};
use toml::Table;

use super::{examples, row};
use crate::process::run;

/// Sections in the order of a config file. Others follow.
const ORDER: [&str; 11] = [
    "server",
    "management",
    "telemetry",
    "imgwire",
    "outbound",
    "session",
    "stores",
    "identities",
    "policies",
    "routes",
    "uploads",
];

/// How the types of the settings are called. All others are called what JSON calls them.
const TYPES: [(&str, &str); 22] = [
    ("AuditInterval", "duration"),
    ("BaseUrl", "URL"),
    ("Bind", "address"),
    ("ByteCount", "size"),
    ("ClaimPath", "claim"),
    ("Discovery", "boolean or URL"),
    ("Endpoint", "URL"),
    ("Expression", "CEL"),
    ("ExpectedValues", "value or list of values"),
    ("Interval", "duration"),
    ("Issuers", "string or list of strings"),
    ("Leeway", "duration"),
    ("MetadataExpression", "CEL"),
    ("Network", "network"),
    ("OriginPattern", "origin"),
    ("Pointer", "JSON Pointer"),
    ("PublicOrigin", "origin"),
    ("SecretSource", "secret"),
    ("SecretSources", "secret or list of secrets"),
    ("ServiceUrl", "URL"),
    ("Size", "size"),
    ("StoreUrl", "URL"),
];

const HEAD: &str = "| key | type | default | |\n|---|---|---|---|\n";

pub(super) fn render() -> String {
    let schema: Value = serde_json::from_slice(&run(&["schema"]).stdout).unwrap();
    let reference = Reference {
        schema: &schema,
        configs: examples::configs(),
    };
    let sections = schema["properties"].as_object().unwrap();
    let others = sections.keys().map(String::as_str);
    let others = others.filter(|name| !ORDER.contains(name));
    let names = ORDER.into_iter().chain(others);
    names.map(|name| reference.section(name)).collect()
}

struct Reference<'a> {
    schema: &'a Value,
    configs: Vec<Table>,
}

/// Tables of the config of one section or kind, and the table within them that a key is in.
struct Place<'a> {
    name: String,
    tables: Vec<&'a Table>,
    /// Those of the whole section.
    others: Vec<&'a Table>,
    parent: Option<&'a str>,
}

impl Reference<'_> {
    fn section(&self, name: &str) -> String {
        let property = &self.schema["properties"][name];
        let tables = examples::tables(&self.configs, name);
        let (heading, inner) = if let Some(entries) = property.get("items") {
            (format!("[[{name}]]"), entries)
        } else if let Some(named) = property.get("additionalProperties") {
            (format!("[{name}.<name>]"), named)
        } else {
            (format!("[{name}]"), property)
        };
        let description = text(property);
        let mut page = format!("## `{heading}`\n\n{description}\n\n");
        let settings = self.resolve(inner);
        match settings.get("oneOf") {
            Some(kinds) => page += &self.kinds(kinds.as_array().unwrap(), name, &tables),
            None => {
                let place = Place {
                    name: name.to_owned(),
                    others: tables.clone(),
                    tables,
                    parent: None,
                };
                page += &self.keys(settings, &place, &|_| true);
            }
        }
        page
    }

    /// The keys of each kind; those of every kind first.
    fn kinds(&self, kinds: &[Value], section: &str, tables: &[&Table]) -> String {
        let has = |kind: &Value, key: &str| kind["properties"].get(key).is_some();
        let is_common = |key: &str| key != "kind" && kinds.iter().all(|kind| has(kind, key));
        let place = |name: String, kind: Option<&str>| Place {
            name,
            others: tables.to_vec(),
            tables: {
                let of_kind = |table: &&&Table| {
                    kind.is_none() || kind == table.get("kind").and_then(toml::Value::as_str)
                };
                tables.iter().filter(of_kind).copied().collect()
            },
            parent: None,
        };
        let mut page = String::new();
        let first = &kinds[0];
        if first["properties"]
            .as_object()
            .unwrap()
            .keys()
            .any(|key| is_common(key))
        {
            page += "### Keys of every kind\n\n";
            page += &self.keys(first, &place(section.to_owned(), None), &is_common);
        }
        for kind in kinds {
            let name = kind["properties"]["kind"]["const"].as_str().unwrap();
            page += &format!("### `kind = \"{name}\"`\n\n{}\n\n", text(kind));
            let place = place(format!("{section} {name}"), Some(name));
            page += &self.keys(kind, &place, &|key| key != "kind" && !is_common(key));
        }
        page
    }

    /// The table of the keys of a table, and those of the tables within it.
    fn keys(
        &self,
        settings: &Value,
        place: &Place<'_>,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> String {
        let properties = settings["properties"].as_object().unwrap();
        let wanted = || properties.iter().filter(|(key, _)| is_wanted(key));
        let required = settings["required"].as_array();
        let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|it| it == key));
        let mut page = HEAD.to_owned();
        let ordered = wanted().filter(|(key, _)| is_required(key));
        let ordered = ordered.chain(wanted().filter(|(key, _)| !is_required(key)));
        for (key, property) in ordered {
            page += &self.key(key, property, is_required(key), place);
        }
        page.push('\n');
        if place.parent.is_none() {
            let mut inner = Vec::new();
            for (key, property) in wanted() {
                self.tables_within(key, property, &mut inner);
            }
            for (keys, settings) in &inner {
                let names: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
                page += &format!("Keys of {}:\n\n", names.join(" and "));
                let within = Place {
                    name: format!("{} {}", place.name, keys[0]),
                    tables: place.tables.clone(),
                    others: place.others.clone(),
                    parent: Some(keys[0]),
                };
                page += &self.keys(settings, &within, &|_| true);
            }
        }
        page
    }

    fn key(&self, key: &str, property: &Value, is_required: bool, place: &Place<'_>) -> String {
        let (described, default) = default_of(&text(property));
        let default = default.or_else(|| may_be_null(property).then(|| "none".to_owned()));
        let default = match (is_required, default, property.get("default")) {
            (true, ..) => "required".to_owned(),
            (_, Some(default), _) => default,
            (_, None, Some(Value::Null) | None) => {
                panic!(
                    "{} {key}: its description must end with `Default: ...`",
                    place.name
                )
            }
            (_, None, Some(default)) => format!("`{default}`"),
        };
        let own = examples::value(&place.tables, place.parent, key);
        // Other kinds use a key with the same name in the same way.
        let any = || examples::value(&place.others, place.parent, key);
        let kind = self.kind_of(property);
        // The other kind may have more values.
        let fits = |example: &String| {
            let value = example.split_once("= ").map(|(_, value)| value);
            !kind.starts_with("`\"") || value.is_some_and(|value| kind.contains(value))
        };
        let example = own
            .or_else(|| any().filter(fits))
            .or_else(|| Some(format!("{key} = {}", default.trim_matches('`'))).filter(fits))
            .unwrap_or_else(|| panic!("{} {key}: no config in docs or config/ has it", place.name));
        let says = format!("{described} Example: `{example}`");
        row(&[&format!("`{key}`"), &kind, &default, &says])
    }

    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        if let Some(name) = schema["$ref"].as_str() {
            return self.resolve(&self.schema["$defs"][name.trim_start_matches("#/$defs/")]);
        }
        match schema["anyOf"].as_array() {
            Some(options) if is_optional(options) => self.resolve(&options[0]),
            _ => schema,
        }
    }

    /// Tables with keys of their own that a key's value may be or hold.
    fn tables_within<'s>(
        &'s self,
        key: &'s str,
        schema: &'s Value,
        found: &mut Vec<(Vec<&'s str>, &'s Value)>,
    ) {
        if known_type(schema).is_some() {
            return;
        }
        if let Some(options) = schema["anyOf"]
            .as_array()
            .filter(|options| is_optional(options))
        {
            return self.tables_within(key, &options[0], found);
        }
        let schema = self.resolve(schema);
        if schema["properties"].is_object() {
            match found.iter_mut().find(|(_, other)| *other == schema) {
                Some((keys, _)) => keys.push(key),
                None => found.push((vec![key], schema)),
            }
        }
        let options = ["anyOf", "oneOf"]
            .into_iter()
            .filter_map(|of| schema[of].as_array());
        for option in options.flatten() {
            self.tables_within(key, option, found);
        }
        for inner in ["additionalProperties", "items"] {
            if let Some(inner) = schema.get(inner).filter(|inner| inner.is_object()) {
                self.tables_within(key, inner, found);
            }
        }
    }

    fn kind_of(&self, schema: &Value) -> String {
        if let Some(name) = known_type(schema) {
            return name.to_owned();
        }
        if let Some(constant) = schema.get("const") {
            return format!("`{constant}`");
        }
        for of in ["anyOf", "oneOf"] {
            if let Some(options) = schema[of].as_array() {
                let options = options.iter().filter(|option| option["type"] != "null");
                let mut kinds: Vec<_> = options.map(|option| self.kind_of(option)).collect();
                kinds.dedup();
                return kinds.join(" or ");
            }
        }
        if schema.get("$ref").is_some() {
            return self.kind_of(self.resolve(schema));
        }
        let kinds: Vec<_> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let kinds = kinds.into_iter().filter(|kind| *kind != "null");
        let kinds: Vec<_> = kinds.map(|kind| self.plain(kind, schema)).collect();
        kinds.join(" or ")
    }

    fn plain(&self, kind: &str, schema: &Value) -> String {
        let of = |inner: &str| schema.get(inner).filter(|inner| inner.is_object());
        match kind {
            "array" => of("items").map_or_else(
                || "list".to_owned(),
                |items| format!("list of {}", plural(&self.kind_of(items))),
            ),
            "object" => of("additionalProperties").map_or_else(
                || "table".to_owned(),
                |values| format!("table of {}", plural(&self.kind_of(values))),
            ),
            other => other.to_owned(),
        }
    }
}

fn known_type(schema: &Value) -> Option<&'static str> {
    let name = schema["$ref"].as_str()?.trim_start_matches("#/$defs/");
    let known = TYPES.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, called)| called)
}

/// Whether a key may be absent without a value in its place.
fn may_be_null(schema: &Value) -> bool {
    let options = schema["anyOf"].as_array();
    let kinds = schema["type"].as_array();
    options.is_some_and(|options| is_optional(options))
        || kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
}

/// Whether these are a type and null.
fn is_optional(options: &[Value]) -> bool {
    options.len() == 2 && options[1]["type"] == "null"
}

fn plural(kind: &str) -> String {
    let is_word = kind
        .chars()
        .all(|char| char.is_ascii_alphabetic() || char == ' ');
    match is_word && !kind.contains(" or ") && !kind.ends_with('s') && kind != "CEL" {
        true => format!("{kind}s"),
        false => kind.to_owned(),
    }
}

fn text(schema: &Value) -> String {
    let empty = Map::new();
    let schema = schema.as_object().unwrap_or(&empty);
    let description = schema.get("description").and_then(Value::as_str);
    description.unwrap_or_default().replace('\n', " ")
}

/// Parts `... Default: X; what follows.` into the description and the default.
fn default_of(description: &str) -> (String, Option<String>) {
    let Some((before, default)) = description.split_once("Default: ") else {
        return (description.to_owned(), None);
    };
    let default = default.trim_end_matches('.');
    let (default, otherwise) = default.split_once("; ").unwrap_or((default, ""));
    let mut described = before.trim().to_owned();
    if !otherwise.is_empty() {
        let otherwise = otherwise.replacen("the gate then ", "the gate ", 1);
        let otherwise = otherwise.replacen("those endpoints then ", "those endpoints ", 1);
        described += &format!(" Without it, {otherwise}.");
    }
    (described, Some(default.to_owned()))
}
