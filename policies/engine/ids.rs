//! Identifiers and names. A value of such a type is valid.

use std::{borrow::Cow, collections::BTreeSet, fmt, ops::Deref, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};
use serde_json::Value;

/// Why a text is not a valid identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// The text contains a line break or another control character, which would garble logs.
    #[error("contains a control character")]
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

/// A name of the config, interned: it lives as long as the process. So workers that share a name do not count
/// references to it. Names come only from the config, so there are few.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
struct Interned(&'static str);

impl From<&str> for Interned {
    fn from(text: &str) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock();
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

/// Reads an identifier in JSON: a string, or an integer, which is converted to its decimal digits. So `7` and `"7"` are
/// the same. A number with a fraction or an exponent, such as `7.0`, is no identifier, and neither is one outside of 64
/// bits, because its digits are not known exactly.
#[must_use]
pub fn id_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(id) => Some(Cow::Borrowed(id)),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(Cow::Owned(id.to_string())),
        _ => None,
    }
}

/// An identifier in JSON and TOML, as [`id_text`] reads it.
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

impl TryFrom<TextOrInteger> for SubjectId {
    type Error = InvalidId;

    fn try_from(TextOrInteger(id): TextOrInteger) -> Result<Self, InvalidId> {
        Self::parse(&id)
    }
}

impl TryFrom<TextOrInteger> for WorkspaceId {
    type Error = InvalidId;

    fn try_from(TextOrInteger(id): TextOrInteger) -> Result<Self, InvalidId> {
        Self::parse(&id)
    }
}

/// Ids of Imgwire are UUIDs, but its SDKs also use others.
const MAX_IMGWIRE_ID_BYTES: usize = 64;

macro_rules! imgwire_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a text of 1 to 64 letters, digits, `-` and `_`, which is safe in a path. `None` if it is another.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                let is_id = (1..=MAX_IMGWIRE_ID_BYTES).contains(&text.len());
                (is_id && text.bytes().all(is_plain)).then(|| Self(text.into()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

imgwire_id!(
    /// The id of an image at Imgwire.
    ImageId
);
imgwire_id!(
    /// The id of an upload token at Imgwire.
    TokenId
);

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $text:ty) => {
        text_newtype!($(#[$doc])* $name, $text, "String", { "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES });
    };
    ($(#[$doc:meta])* $name:ident, $text:ty, in $section:literal) => {
        text_newtype!($(#[$doc])* $name, $text, "String", {
            "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "x-section": $section,
        });
    };
    ($(#[$doc:meta])* $name:ident, $text:ty, $written_as:literal, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = $written_as)]
        pub struct $name($text);

        impl $name {
            /// Parses a text of 1 to 255 bytes without control characters.
            ///
            /// # Errors
            ///
            /// [`InvalidId`] says what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// Returns the text.
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
                schemars::json_schema!($schema)
            }
        }
    };
}

text_newtype!(
    /// The id of a user, unique within the app: the claim `sub` of RFC 7519.
    SubjectId, Arc<str>, "TextOrInteger", { "type": ["string", "integer"] }
);
text_newtype!(
    /// The id of a workspace of the app.
    WorkspaceId, Arc<str>, "TextOrInteger", { "type": ["string", "integer"] }
);
text_newtype!(
    /// The purpose of an upload, for example `avatar`.
    Purpose, Arc<str>
);
text_newtype!(
    /// The name of an identity: `[identities.<name>]`.
    IdentityName, Arc<str>, in "identities"
);
text_newtype!(
    /// The name of a policy: `[policies.<name>]`. Counters belong to it.
    PolicyName, Interned, in "policies"
);
text_newtype!(
    /// The name of a store: `[stores.<name>]`.
    StoreName, Arc<str>, in "stores"
);
text_newtype!(
    /// The path of a `[[routes]]` entry.
    RoutePath, Interned
);
