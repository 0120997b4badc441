//! The one reader of cookies: whatever needs a cookie finds it here, so that no two parts of the gate can see
//! different ones. It compares names byte for byte and decodes nothing.

use actix_web::http::header::{self, HeaderMap};

/// What a request has under the name of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie<'a> {
    /// Nothing, or only empty values: that is how apps sign out.
    Absent,
    /// One value.
    One(&'a [u8]),
    /// More than one value. Which of them another site planted cannot be told.
    Several,
}

impl<'a> Cookie<'a> {
    /// Finds the cookie `name`.
    #[must_use]
    pub fn find(headers: &'a HeaderMap, name: &str) -> Self {
        let mut values = all(headers)
            .filter(|(other, value)| *other == name.as_bytes() && !value.is_empty())
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// All cookies of a request, each as its name and its value. What has no `=` is no cookie.
pub(super) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at(equals);
            Some((name.trim_ascii(), value[1..].trim_ascii()))
        })
}
