//! What all stores use.

use std::sync::Arc;

use policies::Clock;
use rustls::ClientConfig;

use crate::telemetry::Metrics;

pub struct StoreContext {
    pub tls: Arc<ClientConfig>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}
