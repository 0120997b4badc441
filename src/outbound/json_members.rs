//! Reads the members of a JSON object without building values of them.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

use super::json::{InvalidResponse, JsonObject};

/// Calls `read` with each member of an object, which must not have a member twice. `read` returns whether the member is
/// new.
pub(crate) fn read_members<'a>(
    text: &'a [u8],
    read: impl FnMut(Cow<'a, str>, &'a RawValue) -> bool,
) -> Result<(), InvalidResponse> {
    if !text.trim_ascii_start().starts_with(b"{") {
        // Says what it is instead.
        return Err(JsonObject::parse(text)
            .err()
            .unwrap_or(InvalidResponse::NotJson));
    }
    let mut json = Deserializer::from_slice(text);
    let read = json.deserialize_map(MembersVisitor(read));
    read.and_then(|()| json.end()).map_err(|error| {
        if error.is_data() {
            InvalidResponse::DuplicateMember
        } else {
            InvalidResponse::NotJson
        }
    })
}

/// Finds members of an object by their names.
pub(crate) fn find_members<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], InvalidResponse> {
    let mut found = [None; N];
    let mut others = HashSet::new();
    read_members(text, |name, value| {
        match names.iter().position(|known| *known == name) {
            Some(index) => found[index].replace(value).is_none(),
            None => others.insert(name),
        }
    })?;
    Ok(found)
}

/// A name that is copied only if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct MembersVisitor<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue) -> bool> Visitor<'de> for MembersVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Name(name), value)) = map.next_entry()? {
            if !self.0(name, value) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Result<[Option<&str>; 2], InvalidResponse> {
        let found = find_members(text.as_bytes(), ["a", "b"])?;
        Ok(found.map(|value| value.map(RawValue::get)))
    }

    #[test]
    fn members_are_found_as_they_are_written() {
        let text = r#" { "x": [1, {}], "b" : 1.50 , "\u0061": {"c": "d"} } "#;
        assert_eq!(find(text), Ok([Some(r#"{"c": "d"}"#), Some("1.50")]));
        assert_eq!(find("{}"), Ok([None, None]));
    }

    #[test]
    fn ambiguous_objects_and_other_values_are_rejected() {
        for (text, error) in [
            (r#"{"a":1,"a":2}"#, InvalidResponse::DuplicateMember),
            (r#"{"a":1,"\u0061":2}"#, InvalidResponse::DuplicateMember),
            (r#"{"x":1,"x":2}"#, InvalidResponse::DuplicateMember),
            (r#"{"a":1}{}"#, InvalidResponse::NotJson),
            (r#"{"a":}"#, InvalidResponse::NotJson),
            (r#"{"a":1"#, InvalidResponse::NotJson),
            ("", InvalidResponse::NotJson),
            ("[]", InvalidResponse::NotAnObject("an array")),
            ("null", InvalidResponse::NotAnObject("null")),
        ] {
            assert_eq!(find(text), Err(error), "{text}");
        }
    }
}
