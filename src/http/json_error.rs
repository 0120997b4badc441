//! What is wrong with the JSON body of a request, in words for the client.
//!
//! serde_json's own messages have the names of Rust types and no path. So a body that it rejects is read again, with an
//! error type of our own.

use std::fmt;

use policies::{excerpt, similar};
use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, Expected, IntoDeserializer as _, MapAccess, SeqAccess,
        Unexpected, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, map};

/// Explains why `body` is not a `T`. `error` is the one of the first attempt.
pub(super) fn explain<'de, T: Deserialize<'de>>(body: &[u8], error: &serde_json::Error) -> String {
    let value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return malformed(&error),
    };
    match T::deserialize(Reader(value)) {
        Err(invalid) => invalid.to_string(),
        // The value has only the last of several fields with one name.
        Ok(_) => format!("a field is listed twice {}", position(error)),
    }
}

fn position(error: &serde_json::Error) -> String {
    format!("at line {}, column {}", error.line(), error.column())
}

fn malformed(error: &serde_json::Error) -> String {
    let position = position(error);
    if error.is_eof() {
        return format!("malformed JSON: it ends too early, {position}");
    }
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let reason = match reason {
        "expected value" | "expected ident" => "expected a value",
        "recursion limit exceeded" => "it is nested too deep",
        reason => reason,
    };
    format!("malformed JSON {position}: {reason}")
}

/// Why a value is not the expected one.
#[derive(Debug)]
struct Invalid {
    /// The fields on the way to the value, the innermost first.
    path: Vec<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    UnknownField(String, &'static [&'static str]),
    MissingField(&'static str),
    WrongType {
        expected: String,
        found: &'static str,
    },
    Other(String),
}

impl From<Problem> for Invalid {
    fn from(problem: Problem) -> Self {
        let path = Vec::new();
        Self { path, problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.iter().rev().map(|field| excerpt(field));
        let path = path.collect::<Vec<_>>().join(".");
        let (subject, place) = match path.as_str() {
            "" => ("the body".to_owned(), String::new()),
            path => (format!("\"{path}\""), format!(" in \"{path}\"")),
        };
        match &self.problem {
            Problem::UnknownField(field, known) => {
                write!(f, "unknown field \"{}\"{place}", excerpt(field))?;
                let known_fields = known.join(", ");
                match similar(field, known) {
                    Some(name) => write!(
                        f,
                        "; did you mean \"{name}\"? The fields are {known_fields}"
                    ),
                    None => write!(f, "; the fields are {known_fields}"),
                }
            }
            Problem::MissingField(field) => write!(f, "{subject} has no field \"{field}\""),
            Problem::WrongType { expected, found } => {
                write!(f, "{subject} must be {expected}, but it is {found}")
            }
            Problem::Other(reason) if reason.starts_with('`') => f.write_str(reason),
            Problem::Other(reason) if reason.starts_with(char::is_uppercase) => {
                write!(f, "{subject}: {reason}")
            }
            Problem::Other(reason) => write!(f, "{subject} {reason}"),
        }
    }
}

impl std::error::Error for Invalid {}

impl serde::de::Error for Invalid {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        let reason = match reason.to_string() {
            reason if reason == "invalid IP address syntax" => "is not an IP address".to_owned(),
            reason => reason,
        };
        Problem::Other(reason).into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (expected, found) = (expected_words(&expected.to_string()), found_words(&found));
        Problem::WrongType { expected, found }.into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Problem::UnknownField(field.to_owned(), known).into()
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::MissingField(field).into()
    }
}

/// Replaces the names of Rust types.
fn expected_words(expected: &str) -> String {
    let words = match expected {
        "u64" => "a whole number of at least 0",
        "a map" => "an object",
        "a sequence" => "a list",
        "IP address" => "an IP address",
        text if text.starts_with("struct ") => "an object",
        text => text,
    };
    words.to_owned()
}

fn found_words(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) => "a number",
        Unexpected::Signed(number) if *number < 0 => "a negative number",
        Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a number with a fraction or an exponent",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        _ => "an object",
    }
}

/// Reads a value, and adds the fields on the way to errors.
struct Reader(Value);

impl<'de> Deserializer<'de> for Reader {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(values) => visitor.visit_seq(List(values.into_iter())),
            Value::Object(members) => visitor.visit_map(Members::of(members)),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct List(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for List {
    type Error = Invalid;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Invalid> {
        let value = self.0.next();
        value
            .map(|value| seed.deserialize(Reader(value)))
            .transpose()
    }
}

struct Members {
    rest: map::IntoIter,
    current: Option<(String, Value)>,
}

impl Members {
    fn of(members: Map<String, Value>) -> Self {
        Self {
            rest: members.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = Invalid;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Invalid> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Invalid> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Invalid> {
        let (key, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Reader(value)).map_err(|mut invalid| {
            invalid.path.push(key);
            invalid
        })
    }
}
