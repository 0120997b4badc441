//! Reads described requests: the file of `explain`, and the cases of `test`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Failure;
use crate::{
    config::{document::Reader, suggestion::Syntax},
    gate::explain::DescribedRequest,
    http::error::ErrorCode,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[schemars(extend("examples" = [[{ "name": "a member may upload", "expect": "allow" }]]))]
    cases: Vec<Case>,
}

/// A described request and its expected outcome: `allow` or an error code.
#[derive(Deserialize)]
#[serde(try_from = "toml::Table")]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) expect: String,
    pub(super) request: DescribedRequest,
}

impl JsonSchema for Case {
    fn schema_name() -> Cow<'static, str> {
        "Case".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = DescribedRequest::json_schema(generator);
        let codes = ["allow"].into_iter().chain(ErrorCode::all());
        let codes: Vec<_> = codes
            .map(|code| json!({ "type": "string", "const": code }))
            .collect();
        if let Some(keys) = schema.get_mut("properties").and_then(Json::as_object_mut) {
            let name = json!({ "type": "string", "examples": ["a member may upload"] });
            keys.insert("name".to_owned(), name);
            keys.insert("expect".to_owned(), json!({ "anyOf": codes }));
        }
        schema.insert("required".to_owned(), json!(["name", "expect"]));
        schema
    }
}

impl TryFrom<toml::Table> for Case {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let mut text = |key: &str| match table.remove(key) {
            Some(toml::Value::String(text)) => Ok(text),
            _ => Err(format!("`{key}` is required")),
        };
        let (name, expect) = (text("name")?, text("expect")?);
        let request = DescribedRequest::deserialize(table)
            .map_err(|error| format!("{name}: {}", error.message()))?;
        Ok(Self {
            name,
            expect,
            request,
        })
    }
}

pub(super) fn cases(file: &str, text: &str) -> Result<Vec<Case>, Failure> {
    let mut reader = Reader::default();
    let document = reader.parse(text);
    let read: Option<Cases> = if reader.faults.is_empty() {
        reader.table("", Spanned::new(0..0, DeValue::Table(document)))
    } else {
        None
    };
    match read {
        Some(Cases { cases }) if reader.faults.is_empty() => Ok(cases),
        _ => Err(Failure::Config(reader.into_faults(file, text).to_string())),
    }
}

/// Reads a described request in JSON.
pub(super) fn request(file: &str, text: &str) -> Result<DescribedRequest, Failure> {
    let value: Json = serde_json::from_str(text).map_err(|error| {
        let (line, column, message) = (error.line(), error.column(), error.to_string());
        let message = message.split(" at line ").next().unwrap_or_default();
        Failure::Config(format!(
            "{file}:{line}:{column}: is not JSON: {message}; write for example {{ \"subject\": {{ \"id\": \"user_1\" }} }}"
        ))
    })?;
    let Json::Object(fields) = without_null(value) else {
        let message =
            "expected an object; write for example { \"subject\": { \"id\": \"user_1\" } }";
        return Err(Failure::Config(format!("{file}:1:1: {message}")));
    };
    // The reader checks TOML.
    let toml: String = fields
        .iter()
        .map(|(key, value)| format!("{} = {}\n", json!(key), Syntax::Toml.show(value)))
        .collect();
    let mut reader = Reader::default();
    reader.syntax = Syntax::Json;
    let table: DeTable<'_> = reader.parse(&toml);
    let read = reader.table("", Spanned::new(0..0, DeValue::Table(table)));
    match read {
        Some(request) if reader.faults.is_empty() => Ok(request),
        _ => {
            for fault in &mut reader.faults {
                let start = position(text, &fault.key);
                fault.span = start..start;
            }
            Err(Failure::Config(reader.into_faults(file, text).to_string()))
        }
    }
}

/// `null` stands for a field that is absent.
fn without_null(value: Json) -> Json {
    match value {
        Json::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(key, value)| (key, without_null(value)));
            Json::Object(fields.collect::<Map<_, _>>())
        }
        Json::Array(elements) => elements
            .into_iter()
            .filter(|value| !value.is_null())
            .map(without_null)
            .collect(),
        other => other,
    }
}

/// Where the value of a key is in a JSON text, or the object that lacks it.
fn position(text: &str, path: &str) -> usize {
    let mut start = 0;
    for key in path.split('.') {
        let quoted = json!(key.split('[').next().unwrap_or(key)).to_string();
        let mut found = text[start..].match_indices(&quoted);
        let value = found.find_map(|(at, _)| {
            let after = start + at + quoted.len();
            let colon = text[after..].trim_start().strip_prefix(':')?;
            Some(text.len() - colon.trim_start().len())
        });
        let Some(value) = value else { break };
        start = value;
    }
    start
}
