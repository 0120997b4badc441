//! A JSON Web Key Set (RFC 7517).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize as _;
use serde_json::Value;

use super::Key;
use crate::outbound::{InvalidResponse, parse_json};

const MAX_KEYS: usize = 1000;

/// RFC 7518, 3.3.
const MIN_RSA_BITS: usize = 2048;

/// The keys of a set that can verify tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<(Option<String>, Arc<Key>)>,
}

/// A key that the gate does not use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SkippedKey {
    pub kid: Option<String>,
    pub reason: &'static str,
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
        before: Option<&Self>,
    ) -> Result<(Self, Vec<SkippedKey>), &'static str> {
        let document = parse_json(text).map_err(|error| match error {
            InvalidResponse::DuplicateMember => "has a duplicate member",
            _ => "is not JSON",
        })?;
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("is not a JSON Web Key Set")?;
        if entries.len() > MAX_KEYS {
            return Err("has more than 1000 keys");
        }
        let mut set = Self::default();
        let mut skipped = Vec::new();
        for entry in entries {
            let kid = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
            match set.parse_key(entry, algorithms) {
                Ok(key) => {
                    let same = before.and_then(|before| before.same(&kid, &key));
                    set.keys.push((kid, same.unwrap_or_else(|| Arc::new(key))));
                }
                Err(reason) => skipped.push(SkippedKey { kid, reason }),
            }
        }
        Ok((set, skipped))
    }

    /// Finds the key with this `kid` and algorithm. Without a `kid`, the set must have only one key for the algorithm.
    #[must_use]
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Key>> {
        let mut matching = self
            .keys
            .iter()
            .filter(|(id, key)| {
                key.algorithm() == algorithm && (kid.is_none() || id.as_deref() == kid)
            })
            .map(|(_, key)| key);
        match (matching.next(), kid) {
            (Some(_), None) if matching.next().is_some() => None,
            (first, _) => first,
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

    /// Whether `next`, which was parsed after this set, has the same keys.
    #[must_use]
    pub(crate) fn has_same_keys(&self, next: &Self) -> bool {
        let pairs = self.keys.iter().zip(&next.keys);
        self.keys.len() == next.keys.len()
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

    fn same(&self, kid: &Option<String>, key: &Key) -> Option<Arc<Key>> {
        self.keys
            .iter()
            .find(|(id, other)| id == kid && other.is_same(key))
            .map(|(_, key)| key.clone())
    }

    fn parse_key(&self, entry: &Value, algorithms: &[Algorithm]) -> Result<Key, &'static str> {
        let jwk = Jwk::deserialize(entry).map_err(|_| "it is invalid")?;
        check_use(&jwk.common)?;
        let algorithm = algorithm(&jwk, algorithms)?;
        check_strength(&jwk.algorithm)?;
        let kid = jwk.common.key_id.as_deref();
        let is_duplicate = |(id, key): &(Option<String>, Arc<Key>)| {
            id.as_deref() == kid && key.algorithm() == algorithm
        };
        if kid.is_some() && self.keys.iter().any(is_duplicate) {
            return Err("another key has the same `kid`");
        }
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "it is invalid")?;
        Ok(Key::new(algorithm, decoding, Some(jwk.algorithm)))
    }
}

fn check_use(common: &CommonParameters) -> Result<(), &'static str> {
    let signs = match &common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(_) => false,
    };
    let operations = common.key_operations.as_ref();
    if signs && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify)) {
        Ok(())
    } else {
        Err("it is not for verifying signatures")
    }
}

/// The algorithm of a key, which must be part of it because a key must not be used with two (RFC 8725, 3.1).
fn algorithm(jwk: &Jwk, configured: &[Algorithm]) -> Result<Algorithm, &'static str> {
    let fits = |algorithm: &Algorithm| match (&jwk.algorithm, algorithm.family()) {
        (AlgorithmParameters::RSA(_), AlgorithmFamily::Rsa) => true,
        (AlgorithmParameters::EllipticCurve(key), AlgorithmFamily::Ec) => {
            matches!(
                (&key.curve, algorithm),
                (EllipticCurve::P256, Algorithm::ES256) | (EllipticCurve::P384, Algorithm::ES384)
            )
        }
        (AlgorithmParameters::OctetKeyPair(key), AlgorithmFamily::Ed) => {
            key.curve == EllipticCurve::Ed25519
        }
        _ => false,
    };
    let named = jwk.common.key_algorithm.ok_or("it has no `alg`")?;
    let named: Option<Algorithm> = named.to_string().parse().ok();
    configured
        .iter()
        .find(|algorithm| Some(**algorithm) == named && fits(algorithm))
        .copied()
        .ok_or("the config does not have its algorithm")
}

fn check_strength(parameters: &AlgorithmParameters) -> Result<(), &'static str> {
    let AlgorithmParameters::RSA(key) = parameters else {
        return Ok(());
    };
    let modulus = URL_SAFE_NO_PAD
        .decode(&key.n)
        .map_err(|_| "it is invalid")?;
    let significant = modulus
        .iter()
        .position(|byte| *byte != 0)
        .map_or(&[][..], |first| &modulus[first..]);
    let bits = significant.first().map_or(0, |first| {
        significant.len() * 8 - first.leading_zeros() as usize
    });
    if bits < MIN_RSA_BITS {
        Err("its RSA modulus is shorter than 2048 bits")
    } else {
        Ok(())
    }
}
