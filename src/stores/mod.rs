//! Stores for counters and sessions, and databases with memberships.
//!
//! A kind of store is one folder and one line in `KINDS`. The folder declares a `StoreKind`, reads its URLs into a
//! `Location`, and opens that as ports: a [`QuotaStore`](policies::QuotaStore), a
//! [`RateLimitStore`](policies::RateLimitStore), a [`SessionBackend`], a [`MemberDatabase`].

mod backend;
mod fault;
mod health;
mod hosts;
mod kept;
mod kind;
mod look;
mod members;
mod open;
mod owned_task;
mod pool;
mod postgres;
mod redis;
mod retention;
mod sessions;
mod settings;
mod shared_quotas;
mod sqlite;
mod store_clock;

use std::sync::Arc;

use policies::Clock;
use rustls::ClientConfig;

use self::kind::StoreKind;
pub use self::{
    fault::{OpenError, StoreError, StoreFault, Unreachable},
    members::{MemberDatabase, MemberRow},
    open::{Access, OpenStore, Stores},
    sessions::{SessionAction, SessionBackend},
    settings::{StoreSettings, StoreUrl, UsedStore},
};
use crate::telemetry::Metrics;

static KINDS: &[StoreKind] = &[sqlite::KIND, postgres::KIND, redis::KIND];

pub struct Surroundings {
    pub tls: Arc<ClientConfig>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}
