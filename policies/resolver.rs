//! The facts of a request, as expressions see them.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use cel::{
    ExecutionError, Value,
    common::{
        traits::Indexer,
        types::{CelBool, CelInt, CelString, MAP_TYPE, Type},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::Value as Json;

use crate::{
    Clock, DeclaredFile, Facts, Membership, Purpose, Reads, RoutePath, Subject, UploadRequest,
    claim_values::{ClaimValues, Key, Shared, map},
};

/// The facts in CEL, by name: each is made when an expression asks for it.
pub(crate) struct Resolver<'a> {
    subject: Option<&'a Subject>,
    values: &'a ClaimValues,
    membership: Option<&'a Membership>,
    route: &'a RoutePath,
    ip: IpAddr,
    purpose: Option<&'a Purpose>,
    file: Option<&'a DeclaredFile>,
    clock: &'a dyn Clock,
    reads: &'a BTreeMap<&'static str, Reads>,
    /// The values of claims that this evaluation has asked for: as many as the expression may ask for.
    asked: Vec<OnceLock<(Key, Shared)>>,
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

/// What a name leads to.
#[derive(Clone, Copy)]
enum Node<'a> {
    Place(Place),
    /// A claim, or a part of one.
    Claim(&'a Json),
}

/// What a field is.
enum Field<'a> {
    Node(Node<'a>),
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
        let variable = names.next()?;
        let mut node = Node::Place(Place::of(variable)?);
        let mut reads = self.reads.get(variable)?;
        while let Some(name) = names.next() {
            reads = reads.field(name)?;
            match self.field(node, name)? {
                Field::Node(inner) => node = inner,
                Field::Value(value) => return names.next().is_none().then_some(value),
            }
        }
        Some(self.value(node, reads))
    }
}

/// A place or a claim of which only fields are asked for, so that the others need not be made.
#[derive(Clone, Copy)]
struct At<'a> {
    facts: &'a Resolver<'a>,
    node: Node<'a>,
    reads: &'a Reads,
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
        let field = name.and_then(|name| {
            let reads = self.reads.field(name)?;
            Some(match self.facts.field(self.node, name)? {
                Field::Value(value) => value,
                Field::Node(node) => self.facts.value(node, reads),
            })
        });
        field
            .ok_or_else(|| ExecutionError::NoSuchKey(Arc::new(name.unwrap_or_default().to_owned())))
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

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        request: &'a UploadRequest,
        known: &'a Facts,
        clock: &'a dyn Clock,
        reads: &'a BTreeMap<&'static str, Reads>,
    ) -> Self {
        let claims = reads.get("subject").map_or(0, Reads::count);
        Self {
            subject: known.subject.as_deref(),
            values: known.values(),
            asked: (0..claims).map(|_| OnceLock::new()).collect(),
            membership: known.membership.as_ref(),
            route: &request.route,
            ip: request.ip,
            purpose: request.purpose.as_ref(),
            file: request.file.as_ref(),
            clock,
            reads,
        }
    }

    /// A field of a node, if it is there.
    fn field<'b>(&'b self, node: Node<'b>, name: &str) -> Option<Field<'b>> {
        let place = match node {
            Node::Claim(claim) => {
                return Some(Field::Node(Node::Claim(claim.as_object()?.get(name)?)));
            }
            Node::Place(place) => place,
        };
        let value = match (place, name) {
            (Place::Subject, "claims") => {
                self.subject?;
                return Some(Field::Node(Node::Place(Place::Claims)));
            }
            (Place::Request, "file") => {
                self.file?;
                return Some(Field::Node(Node::Place(Place::File)));
            }
            (Place::Claims, name) => {
                let claim = self.subject?.claims.get(name)?;
                return Some(Field::Node(Node::Claim(claim)));
            }
            (Place::Subject, "id") => borrowed(self.subject?.id.as_str()),
            (Place::Subject, "identity") => borrowed(self.subject?.identity.as_str()),
            (Place::Subject, "session") => CowVal::owned(CelBool::from(self.subject?.session)),
            (Place::Workspace, "id") => borrowed(self.membership?.workspace.as_str()),
            (Place::Workspace, "role") => borrowed(self.membership?.role.as_ref()?),
            (Place::Request, "route") => borrowed(self.route.as_str()),
            (Place::Request, "ip") => CowVal::Owned(text(&self.ip.to_string())),
            (Place::Request, "time") => CowVal::Owned(self.time()?),
            (Place::Request, "purpose") => borrowed(self.purpose?.as_str()),
            (Place::File, "name") => borrowed(self.file?.name.as_ref()?),
            (Place::File, "mime_type") => borrowed(self.file?.mime_type.as_ref()?),
            (Place::File, "size") => {
                CowVal::owned(CelInt::from(i64::try_from(self.file?.size?).ok()?))
            }
            _ => return None,
        };
        Some(Field::Value(value))
    }

    /// The value of a node of which the expression reads `reads`.
    fn value<'b>(&'b self, node: Node<'b>, reads: &'b Reads) -> CowVal<'b, 'b> {
        let has_fields = match node {
            Node::Place(_) => true,
            Node::Claim(claim) => claim.is_object(),
        };
        if has_fields && matches!(reads, Reads::Fields(_)) {
            return CowVal::owned(At {
                facts: self,
                node,
                reads,
            });
        }
        match node {
            Node::Place(Place::Subject) => self.shared(Key::Subject, || self.whole(Place::Subject)),
            Node::Place(Place::Claims) => self.shared(Key::Claims, || self.whole(Place::Claims)),
            Node::Place(place) => CowVal::Owned(self.whole(place)),
            Node::Claim(Json::String(claim)) => borrowed(claim),
            Node::Claim(claim @ (Json::Array(_) | Json::Object(_))) => {
                self.shared(Key::part(claim), || self.values.make(claim))
            }
            Node::Claim(claim) => CowVal::Owned(self.values.make(claim)),
        }
    }

    /// A value that all expressions of the request share.
    fn shared(&self, key: Key, make: impl FnOnce() -> Box<dyn Val>) -> CowVal<'_, '_> {
        let shared = || (key, self.values.get(key, make));
        for slot in &self.asked {
            if slot.get().is_none_or(|(asked, _)| *asked == key) {
                return CowVal::Borrowed(&*slot.get_or_init(shared).1);
            }
        }
        CowVal::Owned(shared().1.clone_as_boxed())
    }

    /// All that a place has.
    fn whole(&self, place: Place) -> Box<dyn Val> {
        let mut fields = Vec::with_capacity(5);
        match place {
            Place::Subject => {
                if let Some(subject) = self.subject {
                    fields.push(("id", text(subject.id.as_str())));
                    fields.push(("identity", text(subject.identity.as_str())));
                    fields.push(("session", Box::new(CelBool::from(subject.session))));
                    fields.push(("claims", self.whole(Place::Claims)));
                }
            }
            Place::Claims => {
                let claims = self.subject.map(|subject| &subject.claims);
                return claims.map_or_else(|| map([]), |claims| self.values.make_map(claims));
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
                    if let Some(size) = file.size.and_then(|size| i64::try_from(size).ok()) {
                        fields.push(("size", Box::new(CelInt::from(size))));
                    }
                }
            }
        }
        map(fields)
    }

    fn time(&self) -> Option<Box<dyn Val>> {
        let now = self.clock.now();
        let nanoseconds = now.subsec_nanosecond().try_into().unwrap_or_default();
        let time = chrono::DateTime::from_timestamp(now.as_second(), nanoseconds)?;
        Value::Timestamp(time.fixed_offset()).try_into().ok()
    }
}

fn text(text: &str) -> Box<dyn Val> {
    Box::new(CelString::from(text.to_owned()))
}
