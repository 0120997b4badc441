//! The facts of a request, as expressions and remote policies see them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use cel::{
    Value,
    common::{types::CelString, value::CowVal},
    context::VariableResolver,
};
use serde_json::{Map, json};

use crate::{
    Clock, DeclaredFile, Facts, Membership, Purpose, RoutePath, Subject, UploadRequest,
    expression::Reads,
};

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

/// The facts in CEL, by name: each is made when an expression asks for it.
pub(crate) struct Resolver<'a> {
    subject: Option<&'a Subject>,
    membership: Option<&'a Membership>,
    route: &'a RoutePath,
    ip: IpAddr,
    purpose: Option<&'a Purpose>,
    file: Option<&'a DeclaredFile>,
    clock: &'a dyn Clock,
    reads: &'a BTreeMap<&'static str, Reads>,
}

impl VariableResolver for Resolver<'_> {
    /// `name` is a variable, or a variable with fields of fields, as in `subject.claims.plan`. What has no name of
    /// its own is selected of what has.
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name {
            "subject" => owned(self.subject()),
            "workspace" => owned(self.workspace()),
            "request" => owned(self.request()),
            "subject.id" => Some(borrowed(self.subject?.id.as_str())),
            "subject.identity" => Some(borrowed(self.subject?.identity.as_str())),
            "subject.claims" => owned(self.claims(self.subject?)),
            "workspace.id" => Some(borrowed(self.membership?.workspace.as_str())),
            "workspace.role" => Some(borrowed(self.membership?.role.as_ref()?)),
            "request.route" => Some(borrowed(self.route.as_str())),
            "request.purpose" => Some(borrowed(self.purpose?.as_str())),
            "request.time" => owned(self.time()?),
            _ => match self
                .subject?
                .claims
                .get(name.strip_prefix("subject.claims.")?)?
            {
                // A dot in it is a field of a field.
                _ if name.matches('.').count() > 2 => None,
                serde_json::Value::String(claim) => Some(borrowed(claim)),
                claim => owned(from_json(claim)),
            },
        }
    }
}

fn borrowed(text: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(text))
}

fn owned<'b>(value: Value) -> Option<CowVal<'b, 'b>> {
    value.try_into().ok().map(CowVal::Owned)
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        request: &'a UploadRequest,
        known: &'a Facts,
        clock: &'a dyn Clock,
        reads: &'a BTreeMap<&'static str, Reads>,
    ) -> Self {
        Self {
            subject: known.subject.as_deref(),
            membership: known.membership.as_ref(),
            route: &request.route,
            ip: request.ip,
            purpose: request.purpose.as_ref(),
            file: request.file.as_ref(),
            clock,
            reads,
        }
    }

    fn subject(&self) -> Value {
        let Some(subject) = self.subject else {
            return map([]);
        };
        map([
            ("id", text(subject.id.as_str())),
            ("identity", text(subject.identity.as_str())),
            ("claims", self.claims(subject)),
        ])
    }

    /// The claims that the expression reads.
    fn claims(&self, subject: &Subject) -> Value {
        let reads = self.reads.get("subject");
        match reads.and_then(|reads| reads.field("claims")) {
            Some(Reads::Fields(fields)) => map(fields.keys().filter_map(|name| {
                let claim = subject.claims.get(name)?;
                Some((name.as_str(), from_json(claim)))
            })),
            Some(Reads::All) => object(&subject.claims),
            None => map([]),
        }
    }

    fn workspace(&self) -> Value {
        let Some(membership) = self.membership else {
            return map([]);
        };
        let role = membership.role.as_ref();
        let id = ("id", text(membership.workspace.as_str()));
        map([id]
            .into_iter()
            .chain(role.map(|role| ("role", text(role)))))
    }

    fn request(&self) -> Value {
        let reads = |field| {
            let reads = self.reads.get("request");
            reads.is_some_and(|reads| reads.field(field).is_some())
        };
        let mut fields = Vec::with_capacity(5);
        if reads("route") {
            fields.push(("route", text(self.route.as_str())));
        }
        if reads("ip") {
            fields.push(("ip", text(&self.ip.to_string())));
        }
        if reads("time") {
            fields.extend(self.time().map(|time| ("time", time)));
        }
        fields.extend(
            self.purpose
                .map(|purpose| ("purpose", text(purpose.as_str()))),
        );
        if let Some(file) = self.file {
            let mut declared = Vec::new();
            declared.extend(file.name.as_ref().map(|name| ("name", text(name))));
            let mime_type = file.mime_type.as_ref();
            declared.extend(mime_type.map(|mime_type| ("mime_type", text(mime_type))));
            let size = file.size.and_then(|size| i64::try_from(size).ok());
            declared.extend(size.map(|size| ("size", Value::Int(size))));
            fields.push(("file", map(declared)));
        }
        map(fields)
    }

    fn time(&self) -> Option<Value> {
        let now = self.clock.now();
        let nanoseconds = now.subsec_nanosecond().try_into().unwrap_or_default();
        let time = chrono::DateTime::from_timestamp(now.as_second(), nanoseconds)?;
        Some(Value::Timestamp(time.fixed_offset()))
    }
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
