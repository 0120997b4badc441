//! The facts of a request, as expressions see them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use cel::{
    ExecutionError, Value,
    common::{
        traits::Indexer,
        types::{CelString, MAP_TYPE, Type},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::Map;

use crate::{
    Clock, DeclaredFile, Facts, Membership, Purpose, Reads, RoutePath, Subject, UploadRequest,
};

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

/// A fact that has fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Subject,
    Claims,
    Workspace,
    Request,
    File,
}

/// What a field of a place is.
enum Field<'a> {
    Place(Place),
    Value(CowVal<'a, 'a>),
}

impl Place {
    /// What a variable holds.
    fn of(variable: &str) -> Option<Self> {
        match variable {
            "subject" => Some(Self::Subject),
            "workspace" => Some(Self::Workspace),
            "request" => Some(Self::Request),
            _ => None,
        }
    }

    /// The fields that it may have, and the places among them; a token may have any claim.
    fn fields(self) -> Option<&'static [(&'static str, Option<Self>)]> {
        match self {
            Self::Subject => Some(&[
                ("id", None),
                ("identity", None),
                ("session", None),
                ("claims", Some(Self::Claims)),
            ]),
            Self::Claims => None,
            Self::Workspace => Some(&[("id", None), ("role", None)]),
            Self::Request => Some(&[
                ("purpose", None),
                ("route", None),
                ("ip", None),
                ("time", None),
                ("file", Some(Self::File)),
            ]),
            Self::File => Some(&[("name", None), ("mime_type", None), ("size", None)]),
        }
    }
}

/// Whether there may be such fields of fields of a variable.
///
/// # Errors
///
/// Which one there never is.
pub(crate) fn check_path(variable: &str, path: &[&str]) -> Result<(), String> {
    let mut place = Place::of(variable);
    let mut so_far = variable.to_owned();
    for name in path {
        let Some(fields) = place.map(Place::fields) else {
            return Err(format!("`{so_far}` has no fields, and so no `{name}`"));
        };
        let Some(fields) = fields else {
            return Ok(());
        };
        let Some((_, inner)) = fields.iter().find(|(field, _)| field == name) else {
            let known: Vec<_> = fields.iter().map(|(field, _)| *field).collect();
            let known = known.join("`, `");
            return Err(format!("`{so_far}` has no `{name}`; it has `{known}`"));
        };
        so_far.push('.');
        so_far.push_str(name);
        place = *inner;
    }
    Ok(())
}

impl VariableResolver for Resolver<'_> {
    /// `name` is a variable, or a variable with fields of fields, as in `subject.claims.plan`. What has no name of
    /// its own is selected of what has.
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let mut names = name.split('.');
        let mut place = Place::of(names.next()?)?;
        while let Some(name) = names.next() {
            match self.field(place, name)? {
                Field::Place(inner) => place = inner,
                Field::Value(value) => return names.next().is_none().then_some(value),
            }
        }
        if self.is_read_as_a_whole(place) {
            owned(self.whole(place))
        } else {
            Some(CowVal::owned(At { facts: self, place }))
        }
    }
}

/// A place of which only fields are asked for, so that the others need not be made.
#[derive(Clone, Copy)]
struct At<'a> {
    facts: &'a Resolver<'a>,
    place: Place,
}

impl fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("facts")
    }
}

impl Val for At<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }
}

impl Indexer for At<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key.downcast_ref::<CelString>().map(|name| name.inner());
        let field = name.and_then(|name| self.facts.field(self.place, name));
        match field {
            Some(Field::Value(value)) => Ok(CowVal::Owned(value.into_owned())),
            Some(Field::Place(place)) => Ok(CowVal::owned(Self {
                facts: self.facts,
                place,
            })),
            None => Err(ExecutionError::NoSuchKey(Arc::new(
                name.unwrap_or_default().to_owned(),
            ))),
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
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

    /// A field of a place, if it is there.
    fn field<'b>(&'b self, place: Place, name: &str) -> Option<Field<'b>> {
        let value = match (place, name) {
            (Place::Subject, "claims") => {
                self.subject?;
                return Some(Field::Place(Place::Claims));
            }
            (Place::Request, "file") => {
                self.file?;
                return Some(Field::Place(Place::File));
            }
            (Place::Subject, "id") => borrowed(self.subject?.id.as_str()),
            (Place::Subject, "identity") => borrowed(self.subject?.identity.as_str()),
            (Place::Subject, "session") => owned(Value::Bool(self.subject?.session))?,
            (Place::Claims, name) => match self.subject?.claims.get(name)? {
                serde_json::Value::String(claim) => borrowed(claim),
                claim => owned(from_json(claim))?,
            },
            (Place::Workspace, "id") => borrowed(self.membership?.workspace.as_str()),
            (Place::Workspace, "role") => borrowed(self.membership?.role.as_ref()?),
            (Place::Request, "route") => borrowed(self.route.as_str()),
            (Place::Request, "ip") => owned(text(&self.ip.to_string()))?,
            (Place::Request, "time") => owned(self.time()?)?,
            (Place::Request, "purpose") => borrowed(self.purpose?.as_str()),
            (Place::File, "name") => borrowed(self.file?.name.as_ref()?),
            (Place::File, "mime_type") => borrowed(self.file?.mime_type.as_ref()?),
            (Place::File, "size") => {
                let size = i64::try_from(self.file?.size?).ok()?;
                owned(Value::Int(size))?
            }
            _ => return None,
        };
        Some(Field::Value(value))
    }

    /// Whether the expression does more with a place than to ask for fields of it.
    fn is_read_as_a_whole(&self, place: Place) -> bool {
        let variable = |name| self.reads.get(name);
        let reads = match place {
            Place::Subject => variable("subject"),
            Place::Workspace => variable("workspace"),
            Place::Request => variable("request"),
            Place::Claims => variable("subject").and_then(|reads| reads.field("claims")),
            Place::File => variable("request").and_then(|reads| reads.field("file")),
        };
        matches!(reads, Some(Reads::All))
    }

    /// All that a place has.
    fn whole(&self, place: Place) -> Value {
        let mut fields = Vec::with_capacity(5);
        match place {
            Place::Subject => {
                if let Some(subject) = self.subject {
                    fields.push(("id", text(subject.id.as_str())));
                    fields.push(("identity", text(subject.identity.as_str())));
                    fields.push(("session", Value::Bool(subject.session)));
                    fields.push(("claims", self.whole(Place::Claims)));
                }
            }
            Place::Claims => {
                let claims = self.subject.map(|subject| &subject.claims);
                return claims.map_or_else(|| map([]), object);
            }
            Place::Workspace => {
                if let Some(membership) = self.membership {
                    fields.push(("id", text(membership.workspace.as_str())));
                    let role = membership.role.as_ref();
                    fields.extend(role.map(|role| ("role", text(role))));
                }
            }
            Place::Request => {
                fields.push(("route", text(self.route.as_str())));
                fields.push(("ip", text(&self.ip.to_string())));
                fields.extend(self.time().map(|time| ("time", time)));
                let purpose = self.purpose.map(Purpose::as_str);
                fields.extend(purpose.map(|purpose| ("purpose", text(purpose))));
                fields.extend(self.file.map(|_| ("file", self.whole(Place::File))));
            }
            Place::File => {
                if let Some(file) = self.file {
                    fields.extend(file.name.as_ref().map(|name| ("name", text(name))));
                    let mime_type = file.mime_type.as_ref();
                    fields.extend(mime_type.map(|mime_type| ("mime_type", text(mime_type))));
                    let size = file.size.and_then(|size| i64::try_from(size).ok());
                    fields.extend(size.map(|size| ("size", Value::Int(size))));
                }
            }
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
