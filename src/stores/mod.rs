//! Stores for counters and sessions, and databases with memberships.
//!
//! Each kind of store is one folder and one line in `KINDS` (`settings.rs`). The folder declares a `StoreKind`, parses its
//! URLs into a `Location`, and opens that as ports: a [`QuotaStore`](policies::QuotaStore), a
//! [`RateLimitStore`](policies::RateLimitStore), a [`SessionBackend`], a [`MemberDatabase`], a
//! [`LeaseStore`].

mod backend;
mod connection_cache;
mod fault;
mod health;
mod hosts;
mod kind;
mod open;
mod owned_task;
mod pool;
mod ports;
mod postgres;
mod read_only;
mod redis;
mod retention;
mod settings;
mod shared_quotas;
mod sqlite;
mod store_clock;

pub use self::{
    fault::{OpenError, StoreError, StoreFault, Unreachable},
    kind::StoreContext,
    open::{Access, OpenStore, Stores},
    ports::{LeaseStore, MemberDatabase, MemberRow, SessionAction, SessionBackend},
    settings::{StoreSettings, StoreUrl, UsedStore},
};
