//! The facts of a request, parsed at the edge, without HTTP types.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use crate::{BoxFuture, Denial};

/// A request for an upload token.
pub struct UploadRequest {
    /// The requested route.
    pub route: RoutePath,
    /// The workspace that the client names, not yet verified.
    pub workspace: Option<WorkspaceId>,
    /// What the upload is for, according to the client.
    pub purpose: Option<Purpose>,
    /// The file as the client declares it.
    pub file: Option<DeclaredFile>,
    /// The client's address, as the trusted proxies report it.
    pub ip: IpAddr,
    /// The credentials of the request.
    pub credentials: Box<dyn Credentials>,
}

/// The credentials of a request.
pub trait Credentials {
    /// Finds the first identity of `accept` that a credential of the request addresses. Only that identity judges the
    /// credential.
    ///
    /// # Errors
    ///
    /// Resolves to a [`Fault`](crate::Fault) if that identity cannot decide, not if the credential is invalid.
    fn authenticate<'a>(&'a self, accept: &'a AcceptedIdentities) -> BoxFuture<'a, Presented>;
}

/// The identities that a policy accepts, resolved when the rules are built. The service that implements [`Credentials`]
/// knows them by their positions.
#[derive(Clone, Debug)]
pub struct AcceptedIdentities {
    first: Option<IdentityName>,
    positions: Box<[usize]>,
}

impl AcceptedIdentities {
    /// The identities at `positions`; `first` is the name of the first one.
    #[must_use]
    pub fn new(first: Option<IdentityName>, positions: Vec<usize>) -> Self {
        Self {
            first,
            positions: positions.into(),
        }
    }

    /// The name of the first identity.
    #[must_use]
    pub fn first(&self) -> Option<&IdentityName> {
        self.first.as_ref()
    }

    /// The positions of the identities in the service's list.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }
}

/// What a request presents to some identities.
pub enum Presented {
    /// No credential.
    Nothing,
    /// A valid credential.
    Subject(Arc<Subject>),
    /// An invalid credential, or one that addresses none of the identities.
    Refused(Denial),
}

/// A signed-in user.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its identifier, unique within the app.
    pub id: SubjectId,
    /// The identity that vouched for it. For a session: the identity that the session came from.
    pub identity: IdentityName,
    /// Whether it comes from a session.
    pub session: bool,
    /// Its other claims.
    pub claims: Claims,
    /// When the credential expires, if it does.
    pub expires_at: Option<Timestamp>,
}

/// Claims by name, as in RFC 7519.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// The file as the client declares it. The gate never sees its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredFile {
    /// The file's name.
    pub name: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// A text that cannot be an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// An empty text.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_ID_BYTES`].
    #[error("is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// A line break or another control character, which would garble logs.
    #[error("has a control character")]
    ControlCharacter,
}

/// The longest identifier that a client may send, in bytes.
pub const MAX_ID_BYTES: usize = 255;

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        Err(InvalidId::Empty)
    } else if text.len() > MAX_ID_BYTES {
        Err(InvalidId::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(InvalidId::ControlCharacter)
    } else {
        Ok(())
    }
}

/// The only copy of a name in the config. It lives as long as the process, so that workers that share a name do not
/// count references to it. Names come only from the config, so there are few.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
struct Interned(&'static str);

impl From<&str> for Interned {
    fn from(text: &str) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(text) {
            return Self(name);
        }
        let name: &'static str = Box::leak(text.into());
        names.insert(name);
        Self(name)
    }
}

impl Deref for Interned {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl fmt::Debug for Interned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// An identifier in JSON and TOML: text, or an integer, which becomes its decimal digits.
struct TextOrInteger(String);

impl<'de> Deserialize<'de> for TextOrInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = TextOrInteger;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TextOrInteger, E> {
                Ok(TextOrInteger(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<TextOrInteger, E> {
                Ok(TextOrInteger(number.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<TextOrInteger, E> {
                Ok(TextOrInteger(number.to_string()))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

impl TryFrom<TextOrInteger> for WorkspaceId {
    type Error = InvalidId;

    fn try_from(TextOrInteger(id): TextOrInteger) -> Result<Self, InvalidId> {
        Self::parse(&id)
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $text:ty) => {
        text_newtype!($(#[$doc])* $name, $text, "String");
    };
    ($(#[$doc:meta])* $name:ident, $text:ty, $written_as:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = $written_as)]
        pub struct $name($text);

        impl $name {
            /// Takes a text of 1 to 255 bytes without control characters.
            ///
            /// # Errors
            ///
            /// [`InvalidId`] says what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES })
            }
        }
    };
}

text_newtype!(
    /// Who someone is, unique within the app: `sub` of RFC 7519.
    SubjectId, Arc<str>
);
text_newtype!(
    /// A workspace of the app.
    WorkspaceId, Arc<str>, "TextOrInteger"
);
text_newtype!(
    /// What an upload is for, for example `avatar`.
    Purpose, Arc<str>
);
text_newtype!(
    /// The name of `[identities.<name>]`.
    IdentityName, Arc<str>
);
text_newtype!(
    /// The name of `[policies.<name>]`; counters live per policy name.
    PolicyName, Interned
);
text_newtype!(
    /// The name of `[stores.<name>]`.
    StoreName, Arc<str>
);
text_newtype!(
    /// The path of a `[[routes]]` entry.
    RoutePath, Interned
);
