//! `[imgwire] audit`: repeats what `doctor` tries at Imgwire while the gate runs. Of several gates that share a store, the
//! one that holds a lease does it.

use std::{sync::Arc, time::Duration};

use actix_web::rt;
use secrecy::SecretString;
use tokio::sync::watch;
use uuid::Uuid;

use super::settings::Settings;
use crate::{
    config::{
        ImgwireSettings,
        imgwire::{AuditInterval, ClientKey},
        origin::OriginPattern,
    },
    http::Gate,
    imgwire::audit::{Audit, CLIENT_KEY, bypass},
    outbound::HttpClient,
    telemetry::Point,
};

/// The first audit follows the start within this time. It is random, so that gates which start together do not all ask.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(5);

/// How often the lease is renewed, or another gate tries to take it over.
const RENEWAL: Duration = Duration::from_secs(15);

/// Longer than an audit and a renewal.
const LEASE_TTL: Duration = Duration::from_secs(180);

const LEASE: &str = "audit";

/// The keys of `[imgwire]` that a reload replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditSettings {
    every: Option<AuditInterval>,
    client_key: Option<ClientKey>,
}

impl From<&ImgwireSettings> for AuditSettings {
    fn from(settings: &ImgwireSettings) -> Self {
        Self {
            every: settings.audit,
            client_key: settings.client_key.clone(),
        }
    }
}

pub(crate) struct Auditor {
    gate: Arc<Gate>,
    imgwire: ImgwireSettings,
    api_key: SecretString,
    allowed_origins: Vec<OriginPattern>,
    http: HttpClient,
    settings: watch::Sender<AuditSettings>,
    /// Distinguishes this gate from the others.
    holder: String,
}

/// What the last audits found, for the lines about changes.
#[derive(Default)]
struct Known {
    is_bypassed: bool,
    /// Whether the store of the lease failed.
    has_no_lease: bool,
}

impl Auditor {
    pub(crate) fn new(gate: Arc<Gate>, settings: &Settings, http: HttpClient) -> Self {
        Self {
            gate,
            imgwire: settings.imgwire.clone(),
            api_key: settings.api_key.clone(),
            allowed_origins: settings.server.allowed_origins.clone(),
            http,
            settings: watch::Sender::new(AuditSettings::from(&settings.imgwire)),
            holder: Uuid::new_v4().to_string(),
        }
    }

    /// Replaces the settings. If they changed, an audit follows at once.
    pub(crate) fn reload(&self, settings: &Settings) {
        let new = AuditSettings::from(&settings.imgwire);
        self.settings.send_if_modified(|current| {
            let is_changed = *current != new;
            if new.every.is_none() {
                self.gate.metrics.forget_audit();
            }
            *current = new;
            is_changed
        });
    }

    /// Audits while it is polled.
    pub(crate) async fn run(self: &Arc<Self>) {
        let mut known = Known::default();
        let mut settings = self.settings.subscribe();
        let mut delay = MAX_FIRST_DELAY.mul_f64(fastrand::f64());
        let mut audited_at = None;
        loop {
            let current = settings.borrow_and_update().clone();
            // A change ends this wait, and never an audit, which may have an upload to delete.
            tokio::select! {
                changed = settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    audited_at = None;
                    delay = Duration::ZERO;
                    continue;
                }
                () = tokio::time::sleep(delay), if current.every.is_some() => delay = RENEWAL,
            }
            let Some(every) = current.every else {
                continue;
            };
            if !self.holds_lease(&mut known).await {
                audited_at = None;
                self.gate.metrics.forget_audit();
                continue;
            }
            let now = self.gate.clock.elapsed();
            if audited_at.is_none_or(|at| now.saturating_sub(at) >= every.get()) {
                audited_at = Some(now);
                let audit = self.clone();
                // In a task of its own, so that it ends even if the gate stops meanwhile.
                let points = rt::spawn(async move { audit.audit(&current).await }).await;
                self.record(&points.unwrap_or_default(), &mut known);
            }
        }
    }

    /// Takes or renews the lease. Without a store that gates share, each gate audits for itself.
    async fn holds_lease(&self, known: &mut Known) -> bool {
        let Some(leases) = self.gate.rules.load().stores.leases() else {
            return true;
        };
        match leases.acquire(LEASE, &self.holder, LEASE_TTL).await {
            Ok(is_held) => {
                known.has_no_lease = false;
                is_held
            }
            Err(fault) => {
                if !std::mem::replace(&mut known.has_no_lease, true) {
                    tracing::warn!(%fault, "cannot audit Imgwire: the store of the lease fails");
                }
                false
            }
        }
    }

    async fn audit(&self, settings: &AuditSettings) -> Vec<Point> {
        let audit = Audit {
            settings: &self.imgwire,
            api_key: &self.api_key,
            client_key: settings.client_key.as_ref(),
            probe: true,
            allowed_origins: &self.allowed_origins,
            http: &self.http,
            clock: &*self.gate.clock,
        };
        audit.run().await
    }

    fn record(&self, points: &[Point], known: &mut Known) {
        let is_bypassed = bypass(points);
        self.gate.metrics.record_audit(points, is_bypassed);
        let was_bypassed = known.is_bypassed;
        known.is_bypassed = is_bypassed.unwrap_or(was_bypassed);
        if was_bypassed && !known.is_bypassed {
            tracing::info!("uploads without this gate are no longer possible");
        }
        for point in points {
            let (part, reason, remedy) = (&point.part, &point.message, point.remedy.as_deref());
            if point.part == CLIENT_KEY && point.is_failed() && !was_bypassed {
                tracing::error!(
                    part,
                    reason,
                    remedy,
                    "uploads without this gate are possible"
                );
            } else if point.is_failed() {
                tracing::warn!(part, reason, remedy, "audit of Imgwire failed");
            } else {
                let state = point.state.as_str();
                tracing::debug!(part, state, reason, remedy, "audit of Imgwire");
            }
        }
    }
}
