//! The keys that tokens are verified with.
//!
//! - `algorithm`: the names of algorithms.
//! - `public_key`, `ed25519`, `pem`: public keys, and which of them the gate can use.
//! - `jwk`, `key_set`: a JSON Web Key, and a set of them.
//! - `location`, `published`: a key set that an issuer publishes, where it is and how it is kept up to date.
//! - `trial`: what `doctor` reports about it.

pub(super) mod algorithm;
mod ed25519;
mod jwk;
mod key_set;
mod location;
mod pem;
mod public_key;
mod published;
mod trial;

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use self::public_key::PublicKey;
pub use self::published::{KeysState, PublishedKeys};
pub(super) use self::{
    jwk::KeyTypes,
    key_set::KeySet,
    location::{Location, discovery_url},
    pem::key_format,
    published::KeyError,
    trial::issuer_clock,
};
use super::issuer::Issuer;

/// A key, and the algorithms that it verifies.
pub(crate) struct Key {
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// Distinguishes keys of a set with the same id. Secrets are not compared.
    public: Option<PublicKey>,
    /// Whose tokens the key verifies, if its set says so.
    issuer: Option<Issuer>,
    retired: AtomicBool,
}

impl Key {
    fn public(algorithms: Vec<Algorithm>, key: PublicKey) -> Self {
        Self {
            algorithms,
            decoding: key.decoding(),
            public: Some(key),
            issuer: None,
            retired: AtomicBool::new(false),
        }
    }

    fn secret(algorithms: Vec<Algorithm>, decoding: DecodingKey) -> Self {
        Self {
            algorithms,
            decoding,
            public: None,
            issuer: None,
            retired: AtomicBool::new(false),
        }
    }

    fn of_issuer(self, issuer: Option<Issuer>) -> Self {
        Self { issuer, ..self }
    }

    #[must_use]
    pub(crate) fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Self {
        Self::secret(algorithms.to_vec(), DecodingKey::from_secret(secret))
    }

    /// Returns a public key in PEM for all of `algorithms`, which are of one family.
    ///
    /// # Errors
    ///
    /// What is wrong with the key. The message does not contain it.
    pub(crate) fn from_pem(pem: &str, algorithms: &[Algorithm]) -> Result<Self, String> {
        let family = algorithms.first().map(|algorithm| algorithm.family());
        let key = PublicKey::from_pem(pem, family.unwrap_or(AlgorithmFamily::Ed))?;
        match algorithms.iter().find(|algorithm| !key.allows(**algorithm)) {
            Some(other) => Err(format!(
                "is a {} key, which {other:?} cannot use; remove {other:?} from `algorithms`",
                key.type_name()
            )),
            None => Ok(Self::public(algorithms.to_vec(), key)),
        }
    }

    #[must_use]
    pub(crate) fn serves(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the key may verify a token with these claims.
    pub(super) fn vouches_for(&self, iss: Option<&str>, tid: Option<&str>) -> bool {
        let issuer = self.issuer.as_ref();
        issuer.is_none_or(|issuer| iss.is_some_and(|iss| issuer.vouches_for(iss, tid)))
    }

    #[must_use]
    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.algorithms
            .iter()
            .any(|algorithm| other.serves(*algorithm))
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
        self.algorithms == other.algorithms
            && self.issuer == other.issuer
            && self.public.is_some()
            && self.public == other.public
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.algorithms)
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
