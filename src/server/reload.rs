//! Reloads the config while the gate runs.

use std::sync::Arc;

use policies::BuildError;
use tokio::sync::Notify;

use super::{
    audit::Auditor,
    build::RulesBuilder,
    settings::{Fixed, Settings},
};
use crate::{
    config::Faults,
    http::Gate,
    stores::{Access, StoreError, Stores},
};

/// Replaces the rules for new requests atomically. Counters are kept.
pub struct Reloader {
    gate: Arc<Gate>,
    builder: RulesBuilder,
    auditor: Arc<Auditor>,
    /// The sections that took effect at start.
    fixed: Fixed,
    replaced: Notify,
}

/// Why the config was not reloaded. The current rules stay in force.
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
    #[error("[session] was added; restart the gate to apply it")]
    NewSession,
}

impl Reloader {
    pub(crate) fn new(
        gate: Arc<Gate>,
        builder: RulesBuilder,
        auditor: Arc<Auditor>,
        fixed: Fixed,
    ) -> Self {
        Self {
            gate,
            builder,
            auditor,
            fixed,
            replaced: Notify::new(),
        }
    }

    /// Replaces routes, policies, identities and stores with those of `loaded`. Running requests keep the chain with
    /// which they started. The log names changed sections that take effect only at start. Failures are logged and
    /// counted.
    pub fn reload(&self, loaded: Result<Settings, ReloadError>) -> Result<(), ReloadError> {
        let reloaded = loaded.and_then(|settings| self.replace(&settings));
        let result = if reloaded.is_ok() {
            "applied"
        } else {
            "refused"
        };
        self.gate.metrics.config_reloads(result).inc();
        match &reloaded {
            Ok(()) => tracing::info!("config reloaded"),
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "config reload failed, keeping the current config");
            }
        }
        reloaded
    }

    fn replace(&self, settings: &Settings) -> Result<(), ReloadError> {
        if settings.session.is_some() && !self.builder.has_session() {
            return Err(ReloadError::NewSession);
        }
        settings.log_warnings();
        let earlier = self.gate.rules.load_full();
        let used = settings.used_stores();
        let stores = Stores::open(
            used,
            self.builder.stores(),
            Access::ReadWrite(Some(&earlier.stores)),
        )?;
        let rules = self.builder.build(settings, stores, Some(&earlier))?;
        rules.stores.rename();
        self.gate.rules.store(Arc::new(rules));
        self.replaced.notify_one();
        self.auditor.reload(settings);
        for section in self.fixed.changed(&settings.fixed) {
            tracing::warn!(section, "changed section takes effect after a restart");
        }
        Ok(())
    }

    /// Refreshes the published keys of issuers, always for the current rules.
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
