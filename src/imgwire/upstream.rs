//! What the clients of all workers share.

use std::sync::Arc;

use policies::Clock;

use super::{breaker::Breaker, pool::Pool};
use crate::{config::ImgwireSettings, outbound::Peer, telemetry::Metrics};

pub struct Upstream {
    pub breaker: Breaker,
    pub pool: Option<Arc<Pool>>,
    pub(super) peer: Arc<Peer>,
    pub(super) metrics: Arc<Metrics>,
}

impl Upstream {
    #[must_use]
    pub fn new(
        settings: &ImgwireSettings,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            breaker: Breaker::new(settings.breaker.failures, settings.breaker.probe.get()),
            pool: (settings.pool.as_ref()).map(|pool| Pool::new(pool, clock, metrics)),
            peer: Peer::new(clock.clone()),
            metrics: metrics.clone(),
        })
    }
}
