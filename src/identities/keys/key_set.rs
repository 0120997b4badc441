//! A JSON Web Key Set (RFC 7517).

use std::{fmt, slice, sync::Arc};

use jsonwebtoken::Algorithm;
use policies::excerpt;
use serde_json::Value;

use super::{
    Key,
    jwk::{self, KeyTypes},
};
use crate::outbound::{InvalidResponse, parse_json};

const MAX_KEYS: usize = 1000;

/// The most keys without a `kid`, because each may be tried for a token.
const MAX_KEYS_WITHOUT_KID: usize = 8;

/// The skipped keys that are remembered for the log.
const MAX_REPORTED: usize = 20;

/// The keys of a set that can verify tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<(Option<String>, Arc<Key>)>,
    skipped: SkippedKeys,
}

/// The keys that the gate does not use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SkippedKeys {
    /// The first ones.
    pub(crate) reported: Vec<SkippedKey>,
    pub(crate) count: usize,
}

/// A key that the gate does not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SkippedKey {
    /// The start of the `kid`.
    pub(crate) kid: Option<String>,
    /// The position in the set, from 0.
    pub(crate) index: usize,
    pub(crate) reason: String,
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kid, index, reason } = self;
        match kid {
            Some(kid) => write!(f, "the key `{kid}` cannot be used: {reason}"),
            None => write!(f, "the key at index {index} cannot be used: {reason}"),
        }
    }
}

impl KeySet {
    /// Reads the keys for any of `algorithms`, and skips the others. A key that is also in `before` stays the same [`Key`].
    ///
    /// # Errors
    ///
    /// If the text is not a key set. A set without a usable key is one.
    pub(crate) fn parse(
        text: &[u8],
        algorithms: &[Algorithm],
        types: KeyTypes,
        before: Option<&Self>,
    ) -> Result<Self, &'static str> {
        let document = parse_json(text).map_err(|error| match error {
            InvalidResponse::DuplicateMember => "has a duplicate member",
            _ => "is not JSON",
        })?;
        let entries = entries(&document, types)?;
        if entries.len() > MAX_KEYS {
            return Err("has more than 1000 keys");
        }
        let mut set = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let parsed = jwk::parse(entry, algorithms, types);
            let added = parsed.and_then(|(kid, key)| {
                let same = before.and_then(|before| before.same(kid.as_deref(), &key));
                set.add(kid, same.unwrap_or_else(|| Arc::new(key)))
            });
            if let Err(reason) = added {
                set.skip(entry, index, reason);
            }
        }
        Ok(set)
    }

    fn add(&mut self, kid: Option<String>, key: Arc<Key>) -> Result<(), String> {
        let same_kid = self.keys.iter().filter(|(other, _)| *other == kid);
        let is_full = match kid {
            Some(_) => same_kid
                .map(|(_, other)| other)
                .any(|other| other.overlaps(&key)),
            None => same_kid.count() >= MAX_KEYS_WITHOUT_KID,
        };
        match (is_full, &kid) {
            (false, _) => {
                self.keys.push((kid, key));
                Ok(())
            }
            (true, Some(_)) => Err("another key has the same `kid`".to_owned()),
            (true, None) => Err(format!(
                "it has no `kid`, and {MAX_KEYS_WITHOUT_KID} other keys have none"
            )),
        }
    }

    fn skip(&mut self, entry: &Value, index: usize, reason: String) {
        self.skipped.count += 1;
        if self.skipped.reported.len() < MAX_REPORTED {
            let kid = entry.get("kid").and_then(Value::as_str).map(excerpt);
            let key = SkippedKey { kid, index, reason };
            self.skipped.reported.push(key);
        }
    }

    /// Finds the keys that may have signed a token with this `kid` and this algorithm: those with the same `kid`, or
    /// else those without one. If the token has no `kid`, the only key for the algorithm is enough.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<Arc<Key>> {
        let usable = || {
            let keys = self.keys.iter();
            keys.filter(move |(_, key)| key.serves(algorithm))
        };
        let with = |kid: Option<&str>| -> Vec<_> {
            let keys = usable().filter(|(id, _)| id.as_deref() == kid);
            keys.map(|(_, key)| key.clone()).collect()
        };
        match kid {
            Some(_) => {
                let same = with(kid);
                if same.is_empty() { with(None) } else { same }
            }
            None => match (usable().next(), usable().nth(1)) {
                (Some((_, only)), None) => vec![only.clone()],
                _ => with(None),
            },
        }
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    #[must_use]
    pub(crate) fn skipped(&self) -> &SkippedKeys {
        &self.skipped
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// Whether `next`, which was parsed after this set, has the same keys.
    #[must_use]
    pub(crate) fn has_same_keys(&self, next: &Self) -> bool {
        let pairs = self.keys.iter().zip(&next.keys);
        self.skipped == next.skipped
            && self.keys.len() == next.keys.len()
            && pairs
                .into_iter()
                .all(|((_, key), (_, kept))| Arc::ptr_eq(key, kept))
    }

    /// Whether this set, which was parsed after `before`, has one of its keys.
    #[must_use]
    pub(crate) fn shares_a_key_with(&self, before: &Self) -> bool {
        self.keys.iter().any(|(_, key)| {
            let mut before = before.keys.iter();
            before.any(|(_, other)| Arc::ptr_eq(key, other))
        })
    }

    /// Retires the keys that are not in `next`.
    pub(crate) fn retire_all_but(&self, next: &Self) {
        for (_, key) in &self.keys {
            if !next.keys.iter().any(|(_, kept)| Arc::ptr_eq(kept, key)) {
                key.retire();
            }
        }
    }

    fn same(&self, kid: Option<&str>, key: &Key) -> Option<Arc<Key>> {
        self.keys
            .iter()
            .find(|(id, other)| id.as_deref() == kid && other.is_same(key))
            .map(|(_, key)| key.clone())
    }
}

/// The keys of a document. A file of the operator may have one key instead of a set.
fn entries(document: &Value, types: KeyTypes) -> Result<&[Value], &'static str> {
    match document.get("keys") {
        Some(Value::Array(keys)) => Ok(keys),
        None if types == KeyTypes::PublicAndSecret && document.get("kty").is_some() => {
            Ok(slice::from_ref(document))
        }
        None if document.get("jwks_uri").is_some() => {
            Err("is a discovery document, not a JSON Web Key Set; write its URL as `discovery`")
        }
        None if has_certificates(document) => Err(
            "has certificates by `kid` instead of a JSON Web Key Set; write the URL of the issuer's JSON Web Key Set",
        ),
        _ => Err("is not a JSON Web Key Set"),
    }
}

fn has_certificates(document: &Value) -> bool {
    let mut values = document
        .as_object()
        .into_iter()
        .flat_map(|map| map.values());
    let is_certificate = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE"))
    };
    values.any(is_certificate)
}
