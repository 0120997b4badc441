//! The keys that tokens are verified with.
//!
//! - `key`: one key.
//! - `key_set`: a JSON Web Key Set.
//! - `location`, `published`: a key set that an issuer publishes, where it is and how it is kept up to date.
//! - `trial`: what `doctor` reports about it.

mod key;
mod key_set;
mod location;
mod published;
mod trial;

pub use self::published::{KeysState, PublishedKeys};
pub(super) use self::{
    key::{Key, min_secret_bytes},
    key_set::KeySet,
    location::Location,
    published::KeyError,
    trial::issuer_clock,
};
