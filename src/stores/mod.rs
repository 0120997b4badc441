//! Stores for counters and sessions, and databases with memberships.
//!
//! Each kind of store is one folder and one line in `KINDS` ([`url`]). The folder declares a `StoreKind`, parses its
//! URLs into a `Location`, and opens that as ports: a [`QuotaStore`](policies::QuotaStore), a
//! [`RateLimitStore`](policies::RateLimitStore), a [`SessionBackend`], a [`MemberDatabase`].

mod backend;
mod connection_cache;
mod context;
mod fault;
mod health;
mod hosts;
mod kind;
mod members;
mod open;
mod owned_task;
mod pool;
mod ports;
mod postgres;
mod read_only;
mod redis;
mod retention;
mod sessions;
mod settings;
mod shared_quotas;
mod sqlite;
mod store_clock;
mod url;

pub use self::{
    context::StoreContext,
    fault::{OpenError, StoreError, StoreFault, Unreachable},
    members::{MemberDatabase, MemberRow},
    open::{Access, OpenStore, Stores},
    sessions::{SessionAction, SessionBackend},
    settings::{StoreSettings, UsedStore},
    url::StoreUrl,
};
