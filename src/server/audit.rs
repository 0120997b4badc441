//! `[imgwire] audit`: repeats what `doctor` tries at Imgwire while the gate runs. Of several gates that share a store, the
//! one that holds a lease does it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use secrecy::ExposeSecret as _;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use super::settings::Settings;
use crate::{
    config::{
        ImgwireSettings,
        imgwire::{AuditInterval, ClientKey, EnvironmentId},
        origin::OriginPattern,
    },
    http::Gate,
    imgwire::audit::{Audit, CLIENT_KEY, bypass},
    outbound::{HttpClient, digest::digest},
    telemetry::{Point, PointState},
};

/// The first audit follows the start within this time. It is random, so that gates which start together do not all ask.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(5);

/// How often the lease is renewed, or another gate tries to take it over.
const RENEWAL: Duration = Duration::from_secs(15);

/// Longer than an audit and a renewal.
const LEASE_TTL: Duration = Duration::from_secs(180);

/// A renewal for so short a time releases the lease.
const RELEASE: Duration = Duration::from_millis(1);

/// When an audit that got nothing from Imgwire is repeated, instead of after `audit`.
const REPETITION: Duration = Duration::from_secs(5 * 60);

/// What the auditor does until the next order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Audit(AuditSettings),
    /// The config has no `audit`.
    Wait,
    Stop,
}

/// The keys of `[imgwire]` that a reload replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AuditSettings {
    every: AuditInterval,
    client_key: Option<ClientKey>,
    /// The generation of the API key.
    api_key: u64,
}

impl Order {
    fn new(settings: &ImgwireSettings, gate: &Gate) -> Self {
        settings.audit.map_or(Self::Wait, |every| {
            Self::Audit(AuditSettings {
                every,
                client_key: settings.client_key.clone(),
                api_key: gate.upstream.api_key.load().generation,
            })
        })
    }
}

pub(crate) struct Auditor {
    gate: Arc<Gate>,
    imgwire: ImgwireSettings,
    allowed_origins: Vec<OriginPattern>,
    http: HttpClient,
    orders: watch::Sender<Order>,
    /// Distinguishes this gate from the others.
    holder: String,
}

/// What the audits with one Client Key found, and the lease.
#[derive(Default)]
struct Known {
    client_key: Option<ClientKey>,
    /// An upload without a token was accepted, and none was refused since.
    is_bypassed: bool,
    /// The last audit did not tell whether an upload needs a token.
    is_unclear: bool,
    /// The lease that this gate has.
    lease: Option<String>,
    /// The store of the lease failed.
    has_no_lease: bool,
}

impl Known {
    fn forget_results(&mut self) {
        self.is_bypassed = false;
        self.is_unclear = false;
    }
}

enum Lease {
    Held,
    OfAnother,
    /// The store does not tell.
    Unknown,
}

impl Auditor {
    pub(crate) fn new(gate: Arc<Gate>, settings: &Settings, http: HttpClient) -> Self {
        let order = Order::new(&settings.imgwire, &gate);
        Self {
            gate,
            imgwire: settings.imgwire.clone(),
            allowed_origins: settings.server.allowed_origins.clone(),
            http,
            orders: watch::Sender::new(order),
            holder: Uuid::new_v4().to_string(),
        }
    }

    /// Replaces the settings. If they changed, an audit follows at once.
    pub(crate) fn reload(&self, settings: &Settings) {
        let new = Order::new(&settings.imgwire, &self.gate);
        self.orders.send_if_modified(|order| {
            let is_changed = *order != Order::Stop && *order != new;
            if is_changed {
                *order = new;
            }
            is_changed
        });
    }

    /// Lets [`run`](Self::run) return when the running audit has ended.
    pub(crate) fn stop(&self) {
        self.orders.send_replace(Order::Stop);
    }

    /// Audits until it is stopped.
    pub(crate) async fn run(&self) {
        let mut orders = self.orders.subscribe();
        let mut known = Known::default();
        let mut delay = MAX_FIRST_DELAY.mul_f64(fastrand::f64());
        loop {
            let order = orders.borrow_and_update().clone();
            match &order {
                Order::Audit(settings) => {
                    self.repeat(settings, delay, &mut orders, &mut known).await;
                }
                Order::Wait => {
                    self.forget(&mut known);
                    self.release(&mut known).await;
                    // Cannot fail, because this object has the sender.
                    let _ = orders.changed().await;
                }
                Order::Stop => {
                    self.release(&mut known).await;
                    return;
                }
            }
            delay = Duration::ZERO;
        }
    }

    /// Audits until there is another order. It ends a wait, and never an audit, which may have an upload to delete.
    async fn repeat(
        &self,
        settings: &AuditSettings,
        mut delay: Duration,
        orders: &mut watch::Receiver<Order>,
        known: &mut Known,
    ) {
        let lease = self.lease_of(settings);
        if known.client_key != settings.client_key {
            self.forget(known);
            known.client_key.clone_from(&settings.client_key);
        }
        if known.lease.as_ref() != Some(&lease) {
            self.release(known).await;
        }
        let mut next = None;
        while timeout(delay, orders.changed()).await.is_err() {
            delay = RENEWAL;
            let has_lease = self.acquire(&lease, known).await;
            if orders.has_changed().unwrap_or(true) {
                break;
            }
            match has_lease {
                Lease::Held => {}
                Lease::OfAnother => {
                    self.forget(known);
                    next = None;
                    continue;
                }
                Lease::Unknown => continue,
            }
            let now = self.gate.clock.elapsed();
            if next.is_some_and(|next| now < next) {
                continue;
            }
            let points = self.audit(settings).await;
            match &*orders.borrow() {
                Order::Audit(current) if current == settings => self.record(&points, known),
                Order::Stop => self.record(&points, known),
                Order::Audit(_) | Order::Wait => log_discarded(&points),
            }
            next = Some(now + pause(&points, settings.every.get()));
        }
    }

    fn forget(&self, known: &mut Known) {
        known.forget_results();
        self.gate.metrics.forget_audit();
    }

    /// Gates that audit the same have the same lease.
    fn lease_of(&self, settings: &AuditSettings) -> String {
        let environment = self.imgwire.environment_id.as_ref();
        let client_key = settings.client_key.as_ref();
        let digest = digest([
            self.imgwire.base_url.as_str(),
            environment.map_or("", EnvironmentId::as_str),
            self.gate.upstream.api_key.load().secret.expose_secret(),
            client_key.map_or("", ClientKey::as_str),
        ]);
        let mut name = "audit:".to_owned();
        for byte in &digest[..8] {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// Takes or renews the lease. Without a store that gates share, each gate audits for itself.
    async fn acquire(&self, lease: &str, known: &mut Known) -> Lease {
        let Some(leases) = self.gate.rules.load().stores.leases() else {
            return Lease::Held;
        };
        match leases.acquire(lease, &self.holder, LEASE_TTL).await {
            Ok(is_held) => {
                known.has_no_lease = false;
                known.lease = is_held.then(|| lease.to_owned());
                if is_held {
                    Lease::Held
                } else {
                    Lease::OfAnother
                }
            }
            Err(fault) => {
                if !std::mem::replace(&mut known.has_no_lease, true) {
                    tracing::warn!(%fault, "cannot audit Imgwire: the store of the lease fails");
                }
                Lease::Unknown
            }
        }
    }

    /// Lets another gate take the lease at once.
    async fn release(&self, known: &mut Known) {
        let Some(lease) = known.lease.take() else {
            return;
        };
        let leases = self.gate.rules.load().stores.leases();
        if let Some(leases) = leases
            && let Err(fault) = leases.acquire(&lease, &self.holder, RELEASE).await
        {
            tracing::debug!(%fault, "the lease of the audit was not released");
        }
    }

    async fn audit(&self, settings: &AuditSettings) -> Vec<Point> {
        let api_key = self.gate.upstream.api_key.load().secret.clone();
        let audit = Audit {
            settings: &self.imgwire,
            api_key: &api_key,
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
        let was_bypassed = known.is_bypassed;
        let was_unclear = std::mem::replace(&mut known.is_unclear, is_bypassed.is_none());
        known.is_bypassed = is_bypassed.unwrap_or(was_bypassed);
        // A known bypass lasts until an upload is refused.
        let reported = is_bypassed.or(was_bypassed.then_some(true));
        self.gate.metrics.record_audit(points, reported);
        if was_bypassed && !known.is_bypassed {
            tracing::info!("uploads without this gate are no longer possible");
        }
        for point in points {
            let is_of_key = point.part == CLIENT_KEY;
            let (part, reason, remedy) = (&point.part, &point.message, point.remedy.as_deref());
            if is_of_key && point.is_failed() && !was_bypassed {
                tracing::error!(
                    part,
                    reason,
                    remedy,
                    "uploads without this gate are possible"
                );
            } else if point.is_failed() {
                tracing::warn!(part, reason, remedy, "audit of Imgwire failed");
            } else if is_of_key && is_bypassed.is_none() && !was_unclear {
                tracing::warn!(
                    part,
                    reason,
                    remedy,
                    "cannot tell whether uploads without this gate are possible"
                );
            } else {
                let state = point.state.as_str();
                tracing::debug!(part, state, reason, remedy, "audit of Imgwire");
            }
        }
    }
}

/// The time to the next audit.
fn pause(points: &[Point], every: Duration) -> Duration {
    if points.iter().any(|point| point.state == PointState::Ok) {
        every
    } else {
        every.min(REPETITION)
    }
}

/// Names an image that was perhaps not deleted, although the settings changed during the audit.
fn log_discarded(points: &[Point]) {
    let failed = points
        .iter()
        .find(|point| point.part == CLIENT_KEY && point.is_failed());
    if let Some(point) = failed {
        let (part, reason, remedy) = (&point.part, &point.message, point.remedy.as_deref());
        tracing::warn!(part, reason, remedy, "audit of Imgwire failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_that_gets_nothing_from_imgwire_is_repeated_within_five_minutes() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(60 * 60));
        let unreachable = [
            Point::failed("imgwire.base_url", "", ""),
            Point::not_tried(CLIENT_KEY, "", ""),
        ];
        assert_eq!(pause(&unreachable, hour), 5 * minute);
        assert_eq!(pause(&unreachable, minute), minute);
        let refused = [
            Point::ok("imgwire.base_url", ""),
            Point::failed("imgwire.api_key", "", ""),
        ];
        assert_eq!(pause(&refused, hour), hour);
    }
}
