//! A JSON Web Key Set (RFC 7517): what of it can verify tokens.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize as _;
use serde_json::Value;

use super::key::Key;
use crate::outbound::{InvalidResponse, parse_json};

/// The most keys that a set may have.
const MAX_KEYS: usize = 1000;

/// The shortest RSA modulus, in bits (RFC 7518, 3.3).
const LEAST_RSA_BITS: usize = 2048;

/// The keys of a set that can verify tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<(Option<String>, Arc<Key>)>,
}

/// A key that was left out, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Its id, if it has one.
    pub kid: Option<String>,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl KeySet {
    /// Reads the keys that serve any of `algorithms`. What cannot be used is skipped. A key that stands in
    /// `before`, too, stays the same [`Key`].
    ///
    /// # Errors
    ///
    /// Why the text is no key set. A set without a key of use is one.
    pub(crate) fn parse(
        text: &[u8],
        algorithms: &[Algorithm],
        before: Option<&Self>,
    ) -> Result<(Self, Vec<Skipped>), &'static str> {
        let document = parse_json(text).map_err(|error| match error {
            InvalidResponse::DuplicateMember => "names a member twice",
            _ => "is no JSON",
        })?;
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("is no JSON Web Key Set")?;
        if entries.len() > MAX_KEYS {
            return Err("has more than a thousand keys");
        }
        let mut set = Self::default();
        let mut skipped = Vec::new();
        for entry in entries {
            let kid = entry.get("kid").and_then(Value::as_str).map(str::to_owned);
            match set.usable(entry, algorithms) {
                Ok(key) => {
                    let same = before.and_then(|before| before.same(&kid, &key));
                    set.keys.push((kid, same.unwrap_or_else(|| Arc::new(key))));
                }
                Err(reason) => skipped.push(Skipped { kid, reason }),
            }
        }
        Ok((set, skipped))
    }

    /// The key that `kid` names for an algorithm. A token without a `kid` needs a set that has only one key
    /// for its algorithm.
    #[must_use]
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Key>> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|(id, key)| {
                key.algorithm() == algorithm && (kid.is_none() || id.as_deref() == kid)
            })
            .map(|(_, key)| key);
        match (fitting.next(), kid) {
            (Some(_), None) if fitting.next().is_some() => None,
            (first, _) => first,
        }
    }

    /// How many keys there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether another set has the same keys, those of which it kept.
    #[must_use]
    pub(crate) fn has_the_keys_of(&self, next: &Self) -> bool {
        let pairs = self.keys.iter().zip(&next.keys);
        self.keys.len() == next.keys.len()
            && pairs
                .into_iter()
                .all(|((_, key), (_, kept))| Arc::ptr_eq(key, kept))
    }

    /// Retires the keys that are not in `next`: what they signed is not believed any more.
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

    fn usable(&self, entry: &Value, algorithms: &[Algorithm]) -> Result<Key, &'static str> {
        let jwk = Jwk::deserialize(entry).map_err(|_| "it cannot be read")?;
        check_use(&jwk.common)?;
        let algorithm = algorithm(&jwk, algorithms)?;
        check_strength(&jwk.algorithm)?;
        let kid = jwk.common.key_id.as_deref();
        let doubled = |(id, key): &(Option<String>, Arc<Key>)| {
            id.as_deref() == kid && key.algorithm() == algorithm
        };
        if kid.is_some() && self.keys.iter().any(doubled) {
            return Err("there is another key with its `kid`");
        }
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "it cannot be read")?;
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
        Err("it is not for signatures")
    }
}

/// The one algorithm that a key serves: a key must not be used with two (RFC 8725, 3.1), so it is to name it.
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
    let named = jwk.common.key_algorithm.ok_or("it names no `alg`")?;
    let named: Option<Algorithm> = named.to_string().parse().ok();
    configured
        .iter()
        .find(|algorithm| Some(**algorithm) == named && fits(algorithm))
        .copied()
        .ok_or("its algorithm or type is not among the configured ones")
}

fn check_strength(parameters: &AlgorithmParameters) -> Result<(), &'static str> {
    let AlgorithmParameters::RSA(key) = parameters else {
        return Ok(());
    };
    let modulus = URL_SAFE_NO_PAD
        .decode(&key.n)
        .map_err(|_| "it cannot be read")?;
    let significant = modulus
        .iter()
        .position(|byte| *byte != 0)
        .map_or(&[][..], |first| &modulus[first..]);
    let bits = significant.first().map_or(0, |first| {
        significant.len() * 8 - first.leading_zeros() as usize
    });
    if bits < LEAST_RSA_BITS {
        Err("its RSA modulus is shorter than 2048 bits")
    } else {
        Ok(())
    }
}
