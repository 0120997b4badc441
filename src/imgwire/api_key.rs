//! The Server API Key, which a reload may replace.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use secrecy::{ExposeSecret as _, SecretString};

pub struct ApiKey {
    pub secret: SecretString,
    /// Differs for each key that was in force.
    pub generation: u64,
}

/// The key in force. Shared by the clients of all workers.
pub struct CurrentKey(ArcSwap<ApiKey>);

impl CurrentKey {
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(ArcSwap::from_pointee(ApiKey {
            secret: secret.clone(),
            generation: 0,
        }))
    }

    #[must_use]
    pub fn load(&self) -> Guard<Arc<ApiKey>> {
        self.0.load()
    }

    /// Returns the new generation, or `None` if the key is the same.
    pub(super) fn replace(&self, secret: &SecretString) -> Option<u64> {
        let current = self.load();
        if current.secret.expose_secret() == secret.expose_secret() {
            return None;
        }
        let generation = current.generation + 1;
        self.0.store(Arc::new(ApiKey {
            secret: secret.clone(),
            generation,
        }));
        Some(generation)
    }
}
