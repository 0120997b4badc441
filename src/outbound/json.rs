//! Reads the JSON of other services strictly, so that an ambiguous response never allows an upload.

use std::fmt;

use policies::{WorkspaceId, id_text};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// A JSON object whose members are read by name and type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonObject(Map<String, Value>);

/// Never contains text of the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidResponse {
    #[error("the response is not JSON")]
    NotJson,
    /// Parsers differ in the value that they use (RFC 8259, 4).
    #[error("the response has a duplicate member")]
    DuplicateMember,
    #[error("the response is {0}, expected an object")]
    NotAnObject(&'static str),
    #[error("the response has no `{0}`")]
    Missing(&'static str),
    /// With the prefix of the config.
    #[error("the id in the response is too long")]
    LongId,
    #[error("`{member}` in the response is {found}, expected {expected}")]
    WrongType {
        member: &'static str,
        expected: &'static str,
        found: &'static str,
    },
}

/// Rejects objects with duplicate members.
pub(crate) fn parse(text: &[u8]) -> Result<Value, InvalidResponse> {
    serde_json::from_slice::<Unambiguous>(text)
        .map(|Unambiguous(value)| value)
        .map_err(|error| {
            if error.is_data() {
                InvalidResponse::DuplicateMember
            } else {
                InvalidResponse::NotJson
            }
        })
}

impl JsonObject {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, InvalidResponse> {
        match parse(text)? {
            Value::Object(members) => Ok(Self(members)),
            other => Err(InvalidResponse::NotAnObject(type_name(&other))),
        }
    }

    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.0
    }

    pub(crate) fn take(&mut self, member: &'static str) -> Result<Value, InvalidResponse> {
        self.0
            .remove(member)
            .ok_or(InvalidResponse::Missing(member))
    }

    pub(crate) fn take_string(&mut self, member: &'static str) -> Result<String, InvalidResponse> {
        match self.take(member)? {
            Value::String(text) => Ok(text),
            other => Err(wrong_type(member, "a string", &other)),
        }
    }

    pub(crate) fn take_bool(&mut self, member: &'static str) -> Result<bool, InvalidResponse> {
        match self.take(member)? {
            Value::Bool(value) => Ok(value),
            other => Err(wrong_type(member, "true or false", &other)),
        }
    }

    /// Takes an id, which is a string or a whole number. Returns `None` if the member is missing.
    pub(crate) fn take_id(
        &mut self,
        member: &'static str,
    ) -> Result<Option<WorkspaceId>, InvalidResponse> {
        let Some(value) = self.0.remove(member) else {
            return Ok(None);
        };
        let id = id_text(&value).and_then(|id| WorkspaceId::parse(&id).ok());
        id.map(Some)
            .ok_or_else(|| wrong_type(member, "an id of 1 to 255 bytes", &value))
    }

    /// Takes a string, an array of strings, or null, which is an empty list.
    pub(crate) fn take_strings(
        &mut self,
        member: &'static str,
    ) -> Result<Vec<String>, InvalidResponse> {
        const EXPECTED: &str = "a string, an array of strings or null";
        match self.take(member)? {
            Value::Null => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text]),
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text),
                    other => Err(wrong_type(member, EXPECTED, &other)),
                })
                .collect(),
            other => Err(wrong_type(member, EXPECTED, &other)),
        }
    }
}

pub(crate) fn wrong_type(
    member: &'static str,
    expected: &'static str,
    found: &Value,
) -> InvalidResponse {
    InvalidResponse::WrongType {
        member,
        expected,
        found: type_name(found),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value without duplicate members.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unambiguous(value))) = map.next_entry::<String, _>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_one_unambiguous_object_is_accepted() {
        for (text, error) in [
            ("", InvalidResponse::NotJson),
            ("<!doctype html>", InvalidResponse::NotJson),
            ("{}{}", InvalidResponse::NotJson),
            ("{\"role\":", InvalidResponse::NotJson),
            ("\u{feff}{}", InvalidResponse::NotJson),
            ("[]", InvalidResponse::NotAnObject("an array")),
            ("null", InvalidResponse::NotAnObject("null")),
            ("true", InvalidResponse::NotAnObject("a boolean")),
            (
                "{\"active\":false,\"active\":true}",
                InvalidResponse::DuplicateMember,
            ),
            (
                "{\"a\":[{\"b\":{\"c\":1,\"\\u0063\":1}}]}",
                InvalidResponse::DuplicateMember,
            ),
        ] {
            assert_eq!(JsonObject::parse(text.as_bytes()), Err(error), "{text}");
        }
        let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(nested.as_bytes()), Err(InvalidResponse::NotJson));
    }

    #[test]
    fn a_member_of_another_type_is_an_error() {
        let object = |text: &str| JsonObject::parse(text.as_bytes()).expect("it is an object");
        let mut given =
            object(r#"{"a":"x","b":true,"c":null,"d":["x","y"],"e":["x",7],"f":{"x":1}}"#);
        assert_eq!(given.take_string("a"), Ok("x".to_owned()));
        assert_eq!(given.take_string("a"), Err(InvalidResponse::Missing("a")));
        assert_eq!(given.take_bool("b"), Ok(true));
        assert_eq!(given.take_strings("c"), Ok(Vec::new()));
        assert_eq!(
            given.take_strings("d"),
            Ok(vec!["x".to_owned(), "y".to_owned()])
        );
        for member in ["e", "f"] {
            let wrong = given
                .take_strings(member)
                .expect_err("it is not an array of strings");
            let shown = wrong.to_string();
            assert!(shown.contains("expected a string, an array of strings or null"));
        }
        let wrong = object(r#"{"active":"true"}"#).take_bool("active");
        let shown = wrong.expect_err("it is a string").to_string();
        assert_eq!(
            shown,
            "`active` in the response is a string, expected true or false"
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{0,3}", inner, 0..5)
                    .prop_map(|members| json!(members)),
            ]
        })
    }

    proptest! {
        #[test]
        fn unambiguous_json_is_read_as_serde_json_reads_it(value in values()) {
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }
    }
}
