//! The keys that tokens are verified with.
//!
//! - `key_set`: a JSON Web Key Set.
//! - `location`, `published`: a key set that an issuer publishes, where it is and how it is kept up to date.
//! - `trial`: what `doctor` reports about it.

mod key_set;
mod location;
mod published;
mod trial;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, jwk::AlgorithmParameters};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::published::{KeysState, PublishedKeys};
pub(super) use self::{
    key_set::KeySet, location::Location, published::KeyError, trial::issuer_clock,
};

/// A key for one algorithm.
pub(crate) struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
    /// Distinguishes keys of a set with the same id.
    material: Option<AlgorithmParameters>,
    retired: AtomicBool,
}

impl Key {
    fn new(
        algorithm: Algorithm,
        decoding: DecodingKey,
        material: Option<AlgorithmParameters>,
    ) -> Self {
        Self {
            algorithm,
            decoding,
            material,
            retired: AtomicBool::new(false),
        }
    }

    /// Returns the key of a shared secret for each of `algorithms`.
    #[must_use]
    pub(crate) fn from_secret(secret: &SecretString, algorithms: &[Algorithm]) -> Vec<Arc<Self>> {
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self::for_each(&key, algorithms)
    }

    /// Returns the public key in PEM for each of `algorithms`, which are of one family.
    ///
    /// # Errors
    ///
    /// What is wrong with the key. The message does not contain it.
    pub(crate) fn from_pem(
        pem: &SecretString,
        algorithms: &[Algorithm],
    ) -> Result<Vec<Arc<Self>>, String> {
        let pem = pem.expose_secret();
        if pem.contains("PRIVATE KEY") {
            return Err("is a private key; write the public key".to_owned());
        }
        let family = algorithms.first().map(|algorithm| algorithm.family());
        let (key, expected) = match family {
            Some(AlgorithmFamily::Rsa) => (DecodingKey::from_rsa_pem(pem.as_bytes()), "RSA"),
            Some(AlgorithmFamily::Ec) => (DecodingKey::from_ec_pem(pem.as_bytes()), "EC"),
            _ => (DecodingKey::from_ed_pem(pem.as_bytes()), "Ed25519"),
        };
        key.map(|key| Self::for_each(&key, algorithms))
            .map_err(|_| format!("is not an {expected} public key in PEM"))
    }

    fn for_each(key: &DecodingKey, algorithms: &[Algorithm]) -> Vec<Arc<Self>> {
        let algorithms = algorithms.iter();
        algorithms
            .map(|algorithm| Arc::new(Self::new(*algorithm, key.clone(), None)))
            .collect()
    }

    #[must_use]
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Whether the issuer has removed the key, so that its tokens are no longer valid.
    #[must_use]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    fn is_same(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.material == other.material
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

/// The minimum size of a shared secret, which is the size of the hash (RFC 7518, 3.2).
#[must_use]
pub(crate) fn min_secret_bytes(algorithms: &[Algorithm]) -> usize {
    let hash = |algorithm: &Algorithm| match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 1,
    };
    algorithms.iter().map(hash).max().unwrap_or(1)
}
