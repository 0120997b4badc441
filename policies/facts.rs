//! The facts of a request, as expressions and remote policies see them.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use cel::Value;
use serde_json::{Map, json};

use crate::{Clock, Facts, UploadRequest, expression::Reads};

/// The facts as JSON: what a remote policy is told. A fact that is missing has no key.
pub(crate) fn to_json(
    request: &UploadRequest,
    known: &Facts,
    clock: &dyn Clock,
) -> serde_json::Value {
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

/// The facts but the time in bytes, the same for the same facts alone: each is told from its neighbours by its length.
pub(crate) fn without_time(request: &UploadRequest, known: &Facts) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut put = |fact: Option<&[u8]>| {
        let length = fact.map_or(u64::MAX, |fact| fact.len() as u64);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(fact.unwrap_or_default());
    };
    let subject = known.subject.as_deref();
    put(subject.map(|subject| subject.id.as_str().as_bytes()));
    put(subject.map(|subject| subject.identity.as_str().as_bytes()));
    let membership = known.membership.as_ref();
    put(membership.map(|membership| membership.workspace.as_str().as_bytes()));
    put(membership.and_then(|membership| Some(membership.role.as_ref()?.as_bytes())));
    put(Some(request.route.as_str().as_bytes()));
    put(request
        .purpose
        .as_ref()
        .map(|purpose| purpose.as_str().as_bytes()));
    let file = request.file.as_ref();
    put(file.and_then(|file| Some(file.name.as_ref()?.as_bytes())));
    put(file.and_then(|file| Some(file.mime_type.as_ref()?.as_bytes())));
    let size = file.and_then(|file| file.size).map(u64::to_le_bytes);
    put(size.as_ref().map(|size| size.as_slice()));
    match request.ip {
        IpAddr::V4(ip) => put(Some(&ip.octets())),
        IpAddr::V6(ip) => put(Some(&ip.octets())),
    }
    put(file.is_some().then_some(&[]));
    if let Some(subject) = subject {
        // Writing to a Vec cannot fail, and a map of texts to JSON is JSON.
        let _ = serde_json::to_writer(&mut bytes, &subject.claims);
    }
    bytes
}

/// `subject` in CEL, as far as it is read.
pub(crate) fn subject(known: &Facts, reads: &Reads) -> Value {
    let Some(subject) = &known.subject else {
        return map([]);
    };
    let mut fields = Vec::with_capacity(3);
    if reads.field("id").is_some() {
        fields.push(("id", text(subject.id.as_str())));
    }
    if reads.field("identity").is_some() {
        fields.push(("identity", text(subject.identity.as_str())));
    }
    if let Some(reads) = reads.field("claims") {
        fields.push(("claims", claims(&subject.claims, reads)));
    }
    map(fields)
}

fn claims(all: &Map<String, serde_json::Value>, reads: &Reads) -> Value {
    match reads {
        Reads::All => object(all),
        Reads::Fields(fields) => map(fields.keys().filter_map(|name| {
            let claim = all.get(name)?;
            Some((name.as_str(), from_json(claim)))
        })),
    }
}

/// `workspace` in CEL, as far as it is read.
pub(crate) fn workspace(known: &Facts, reads: &Reads) -> Value {
    let Some(membership) = &known.membership else {
        return map([]);
    };
    let mut fields = Vec::with_capacity(2);
    if reads.field("id").is_some() {
        fields.push(("id", text(membership.workspace.as_str())));
    }
    let role = membership.role.as_ref();
    let role = role.filter(|_| reads.field("role").is_some());
    fields.extend(role.map(|role| ("role", text(role))));
    map(fields)
}

/// `request` in CEL, as far as it is read.
pub(crate) fn request(request: &UploadRequest, clock: &dyn Clock, reads: &Reads) -> Value {
    let mut fields = Vec::with_capacity(5);
    if reads.field("route").is_some() {
        fields.push(("route", text(request.route.as_str())));
    }
    if reads.field("ip").is_some() {
        fields.push(("ip", text(&request.ip.to_string())));
    }
    if reads.field("time").is_some() {
        let now = clock.now();
        let time = chrono::DateTime::from_timestamp(
            now.as_second(),
            now.subsec_nanosecond().try_into().unwrap_or_default(),
        );
        fields.extend(time.map(|time| ("time", Value::Timestamp(time.fixed_offset()))));
    }
    if let Some(purpose) = &request.purpose {
        fields.push(("purpose", text(purpose.as_str())));
    }
    if let Some(file) = &request.file {
        let mut declared = Vec::with_capacity(3);
        declared.extend(file.name.as_ref().map(|name| ("name", text(name))));
        let mime_type = file.mime_type.as_ref();
        declared.extend(mime_type.map(|mime_type| ("mime_type", text(mime_type))));
        let size = file.size.and_then(|size| i64::try_from(size).ok());
        declared.extend(size.map(|size| ("size", Value::Int(size))));
        fields.push(("file", map(declared)));
    }
    map(fields)
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
