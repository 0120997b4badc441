//! Stores for counters and sessions, and databases with memberships.
//!
//! Each kind of store is one folder and one line in `KINDS` (`settings.rs`). The folder declares a `StoreKind`, parses its
//! URLs into a `Location`, and opens that as ports: a [`QuotaStore`](policies::QuotaStore), a
//! [`RateLimitStore`](policies::RateLimitStore), a [`SessionBackend`], a [`MemberDatabase`], a
//! [`LeaseStore`].

mod connections;
mod fault;
mod health;
mod hosts;
mod kind;
mod open;
mod postgres;
mod redis;
mod retention;
mod settings;
mod shared_quotas;
mod sqlite;
mod tls;

pub use self::{
    fault::{OpenError, StoreError, StoreFault, Unreachable},
    kind::{LeaseStore, MemberDatabase, MemberRow, SessionAction, SessionBackend, StoreContext},
    open::{Access, OpenStore, Stores},
    settings::{Store, StoreSettings, StoreUrl, UrlSource, UsedStore},
    tls::TlsSettings,
};
