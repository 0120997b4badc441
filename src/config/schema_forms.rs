//! The alternatives of a JSON Schema.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// The names of each section of named tables, in the order of the file.
pub(super) type Names = BTreeMap<&'static str, Vec<String>>;

/// Resolves `$ref` and lists the alternatives of a schema, without `null`.
pub(super) fn forms<'s>(definitions: &'s Json, schema: &'s Json) -> Vec<&'s Json> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return forms(definitions, &definitions[name]);
    }
    let alternatives = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    match alternatives {
        Some(alternatives) => {
            let forms = alternatives
                .iter()
                .flat_map(|form| forms(definitions, form));
            forms.collect()
        }
        None if schema["type"] == "null" => Vec::new(),
        None => vec![schema],
    }
}

/// A schema and the schemas that it stands for, up to its alternatives.
pub(super) fn layers<'s>(definitions: &'s Json, schema: &'s Json) -> Vec<&'s Json> {
    let mut layers = vec![schema];
    let mut inner = schema;
    loop {
        let forms = inner["anyOf"].as_array().into_iter().flatten();
        let mut forms = forms.filter(|form| form["type"] != "null");
        inner = match (inner["$ref"].as_str(), forms.next(), forms.next()) {
            (Some(name), ..) => &definitions[name.rsplit('/').next().unwrap_or_default()],
            (None, Some(only), None) => only,
            _ => return layers,
        };
        layers.push(inner);
    }
}

/// The types of a form, as JSON Schema calls them.
pub(super) fn types(form: &Json) -> impl Iterator<Item = &str> {
    let many = form["type"].as_array().into_iter().flatten();
    let types = form["type"]
        .as_str()
        .into_iter()
        .chain(many.filter_map(Json::as_str));
    types.filter(|name| *name != "null")
}

pub(super) fn is_type(form: &Json, wanted: &str) -> bool {
    types(form).any(|name| name == wanted)
}

/// The range of a whole number.
pub(super) fn bounds(form: &Json) -> (i128, i128) {
    let largest = match form["format"].as_str() {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => i64::MAX.into(),
    };
    let bound = |key: &str| form[key].as_f64().map(|bound| bound as i128);
    let smallest = bound("minimum").unwrap_or(i64::MIN.into());
    (smallest, bound("maximum").unwrap_or(largest).min(largest))
}

pub(super) fn is_secret(form: &Json) -> bool {
    let properties = form["properties"].as_object();
    properties.is_some_and(|keys| {
        keys.len() == 1 && (keys.contains_key("env") || keys.contains_key("file"))
    })
}

/// The last key of a path, without an index.
pub(super) fn key_of(path: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    key.split('[').next().unwrap_or(key).to_owned()
}
