//! Reloads the config while the gate runs.

use std::sync::Arc;

use policies::BuildError;
use tokio::sync::Notify;

use super::{
    audit::Auditor,
    build::{RulesBuilder, operator_access},
    settings::{Fixed, Settings},
};
use crate::{
    config::Faults,
    http::{Gate, session_store::Sessions},
    outbound::Authorities,
    stores::{Access, OpenError, StoreError, Stores},
};

/// Replaces the rules for new requests atomically. Counters are kept.
pub struct Reloader {
    gate: Arc<Gate>,
    builder: RulesBuilder,
    auditor: Arc<Auditor>,
    sessions: Sessions,
    authorities: Arc<Authorities>,
    /// The settings that took effect at start.
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

impl ReloadError {
    /// Whether the cause may go away by itself, for example when a volume is mounted.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Faulty(faults) => faults.is_temporary(),
            Self::Store(error) => matches!(error.source, OpenError::Io { .. }),
            Self::Policy(_) | Self::NewSession => false,
        }
    }
}

impl Reloader {
    pub(crate) fn new(
        gate: Arc<Gate>,
        builder: RulesBuilder,
        auditor: Arc<Auditor>,
        sessions: Sessions,
        authorities: Arc<Authorities>,
        fixed: Fixed,
    ) -> Self {
        Self {
            gate,
            builder,
            auditor,
            sessions,
            authorities,
            fixed,
            replaced: Notify::new(),
        }
    }

    /// Replaces routes, policies, identities and stores with those of `loaded`. Running requests keep the chain with
    /// which they started. The log names changed sections that take effect only at start. Failures are logged and
    /// counted.
    pub fn reload(&self, loaded: Result<Settings, ReloadError>) -> Result<(), ReloadError> {
        self.reload_again(loaded, None)
    }

    /// Like [`reload`](Self::reload). A failure with the text `known` was logged and counted before.
    pub fn reload_again(
        &self,
        loaded: Result<Settings, ReloadError>,
        known: Option<&str>,
    ) -> Result<(), ReloadError> {
        let reloaded = loaded.and_then(|settings| self.replace(&settings));
        let count = |result| self.gate.metrics.config_reloads(result).inc();
        match &reloaded {
            Ok(()) => {
                count("applied");
                tracing::info!("config reloaded");
            }
            Err(error) if known.is_some_and(|known| error.to_string() == known) => {}
            Err(error) => {
                count("refused");
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
        self.sessions.reopen(&rules.stores);
        rules.stores.rename();
        self.gate.rules.store(Arc::new(rules));
        self.replace_secrets(settings);
        self.replaced.notify_one();
        self.auditor.reload(settings);
        self.name_waiting(settings);
        Ok(())
    }

    /// Names the changed settings that take effect only at start.
    fn name_waiting(&self, settings: &Settings) {
        let mut keys = self.fixed.changed(&settings.fixed);
        let stores = self.gate.rules.load().stores.clone();
        let kept = settings.stores.iter().filter(|(name, store)| {
            let mut open = stores.iter();
            open.any(|open| open.name == *name && open.timeout != store.settings.timeout)
        });
        keys.extend(kept.map(|(name, _)| format!("stores.{name}.timeout")));
        let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        self.gate.metrics.config_waiting().set(count);
        if !keys.is_empty() {
            let keys = keys.join(", ");
            tracing::warn!(keys, "changed settings take effect after a restart");
        }
    }

    /// Replaces the secrets that are not part of the rules.
    fn replace_secrets(&self, settings: &Settings) {
        self.authorities.replace(&settings.authorities);
        self.gate.upstream.replace_key(&settings.api_key);
        self.gate
            .operators
            .store(Arc::new(operator_access(settings)));
        if let (Some(cookie), Some((_, keys))) = (&self.gate.session, &settings.session) {
            cookie.replace_keys(keys);
        }
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
