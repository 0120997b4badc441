//! Replaces the rules while the gate runs.

use std::sync::Arc;

use policies::BuildError;
use tokio::sync::Notify;

use super::{
    build::Foundation,
    settings::{Fixed, Settings},
};
use crate::{
    config::Faults,
    http::Gate,
    stores::{Access, StoreError, Stores},
};

/// Replaces the rules for new requests, all at once, and keeps the counters.
pub struct Reloader {
    gate: Arc<Gate>,
    foundation: Foundation,
    /// The sections that took effect at the start.
    fixed: Fixed,
    replaced: Notify,
}

/// Why rules were not replaced. The old ones stay in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Faulty(#[from] Faults),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policy(#[from] BuildError),
    #[error("[session] is new, and begins when the gate is started anew")]
    NewSession,
}

impl Reloader {
    pub(crate) fn new(gate: Arc<Gate>, foundation: Foundation, fixed: Fixed) -> Self {
        Self {
            gate,
            foundation,
            fixed,
            replaced: Notify::new(),
        }
    }

    /// Replaces routes, policies and identities with those of `loaded`. Running requests keep the chain that they
    /// started with. Sections that take effect only at start are named in the log if they differ. A failure is logged
    /// and counted, too.
    pub fn reload(&self, loaded: Result<Settings, ReloadError>) -> Result<(), ReloadError> {
        let done = loaded.and_then(|settings| self.replace(&settings));
        let result = if done.is_ok() { "applied" } else { "refused" };
        self.gate.metrics.config_reloads(result).inc();
        match &done {
            Ok(()) => tracing::info!("the config was loaded again and is in force"),
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "the config was not loaded again; nothing is changed");
            }
        }
        done
    }

    fn replace(&self, settings: &Settings) -> Result<(), ReloadError> {
        if settings.session.is_some() && !self.foundation.has_session() {
            return Err(ReloadError::NewSession);
        }
        settings.log_warnings();
        let earlier = self.gate.rules.load_full();
        let used = settings.used_stores();
        let stores = Stores::open(
            used,
            self.foundation.stores(),
            Access::ReadWrite(Some(&earlier.stores)),
        )?;
        let rules = self.foundation.rules(settings, stores, Some(&earlier))?;
        self.gate.rules.store(Arc::new(rules));
        self.replaced.notify_one();
        for section in self.fixed.differing(&settings.fixed) {
            tracing::warn!(section, "takes effect when the gate is started anew");
        }
        Ok(())
    }

    /// Refreshes the key sets that issuers publish, for the rules in force.
    pub(crate) async fn refresh_keys(&self) {
        loop {
            let identities = self.gate.rules.load().identities.clone();
            tokio::select! {
                () = async { identities.refresh_keys().await; std::future::pending().await } => {}
                () = self.replaced.notified() => {}
            }
        }
    }
}
