//! The facts of a request, as expressions and remote policies see them.

use std::{collections::HashMap, sync::Arc};

use cel::Value;
use serde_json::{Map, json};

use crate::{Clock, Facts, UploadRequest};

/// The facts as JSON: what a remote policy is told. A fact that is missing has no key.
#[must_use]
pub fn to_json(request: &UploadRequest, known: &Facts, clock: &dyn Clock) -> serde_json::Value {
    let mut document = Map::new();
    if let Some(subject) = &known.subject {
        let subject = json!({
            "id": subject.id,
            "identity": subject.identity,
            "claims": subject.claims,
        });
        document.insert("subject".to_owned(), subject);
    }
    if let Some(membership) = &known.membership {
        let mut workspace = json!({ "id": membership.workspace });
        if let Some(role) = &membership.role {
            workspace["role"] = json!(role);
        }
        document.insert("workspace".to_owned(), workspace);
    }
    let mut asked = json!({
        "route": request.route,
        "ip": request.ip,
        "time": clock.now(),
    });
    if let Some(purpose) = &request.purpose {
        asked["purpose"] = json!(purpose);
    }
    if let Some(file) = &request.file {
        let mut declared = Map::new();
        declared.extend(
            file.name
                .as_ref()
                .map(|name| ("name".to_owned(), json!(name))),
        );
        let mime_type = file.mime_type.as_ref();
        declared.extend(mime_type.map(|mime_type| ("mime_type".to_owned(), json!(mime_type))));
        declared.extend(file.size.map(|size| ("size".to_owned(), json!(size))));
        asked["file"] = declared.into();
    }
    document.insert("request".to_owned(), asked);
    document.into()
}

/// `subject` in CEL.
pub(crate) fn subject(known: &Facts) -> Value {
    let Some(subject) = &known.subject else {
        return map([]);
    };
    map([
        ("id", text(subject.id.as_str())),
        ("identity", text(subject.identity.as_str())),
        ("claims", object(&subject.claims)),
    ])
}

/// `workspace` in CEL.
pub(crate) fn workspace(known: &Facts) -> Value {
    let Some(membership) = &known.membership else {
        return map([]);
    };
    let mut workspace = vec![("id", text(membership.workspace.as_str()))];
    workspace.extend(membership.role.as_ref().map(|role| ("role", text(role))));
    map(workspace)
}

/// `request` in CEL.
pub(crate) fn request(request: &UploadRequest, clock: &dyn Clock) -> Value {
    let mut asked = vec![
        ("route", text(request.route.as_str())),
        ("ip", text(&request.ip.to_string())),
    ];
    let now = clock.now();
    let time = chrono::DateTime::from_timestamp(
        now.as_second(),
        now.subsec_nanosecond().try_into().unwrap_or_default(),
    );
    asked.extend(time.map(|time| ("time", Value::Timestamp(time.fixed_offset()))));
    let purpose = request.purpose.as_ref();
    asked.extend(purpose.map(|purpose| ("purpose", text(purpose.as_str()))));
    if let Some(file) = &request.file {
        let mut declared = Vec::new();
        declared.extend(file.name.as_ref().map(|name| ("name", text(name))));
        let mime_type = file.mime_type.as_ref();
        declared.extend(mime_type.map(|mime_type| ("mime_type", text(mime_type))));
        let size = file.size.and_then(|size| i64::try_from(size).ok());
        declared.extend(size.map(|size| ("size", Value::Int(size))));
        asked.push(("file", map(declared)));
    }
    map(asked)
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let entries: HashMap<String, Value> = entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Value::Map(entries.into())
}

fn object(object: &Map<String, serde_json::Value>) -> Value {
    map(object
        .iter()
        .map(|(key, value)| (key.as_str(), from_json(value))))
}

/// Numbers that are whole are `int`, as in the text of an expression.
fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_f64().map(Value::Float))
            .unwrap_or(Value::Null),
        serde_json::Value::String(value) => text(value),
        serde_json::Value::Array(values) => {
            Value::List(Arc::new(values.iter().map(from_json).collect()))
        }
        serde_json::Value::Object(value) => object(value),
    }
}
