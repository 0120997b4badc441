//! Stores for counters and sessions, and databases with memberships.
//!
//! Each kind of store is one folder and one line in `KINDS` (`settings.rs`). The folder declares a `StoreKind`, parses its
//! URLs into a `Location`, and opens that as ports: a [`QuotaStore`](policies::QuotaStore), a
//! [`RateLimitStore`](policies::RateLimitStore), a [`SessionBackend`], a [`MemberDatabase`], a
//! [`LeaseStore`], a [`RecordStore`].

mod connections;
mod events;
mod fault;
mod file_id;
mod health;
mod hosts;
mod kind;
mod open;
mod postgres;
mod prefix;
mod reconciliations;
mod record_id;
mod records;
mod redis;
mod remark;
mod retention;
mod settings;
mod shared_quotas;
mod sqlite;
mod tls;

pub(crate) use self::file_id::FilePlace;
pub use self::{
    events::{Backlog, EventKind, EventStore, NewEvent, StoredEvent},
    fault::{FileProblem, OpenError, StoreError, StoreFault, Unreachable},
    kind::{LeaseStore, MemberDatabase, MemberRow, SessionAction, SessionBackend, StoreContext},
    open::{Access, OpenStore, Stores},
    reconciliations::{Reconciled, Reconciliation, ReconciliationStore},
    records::{
        Begun, Completed, ERASURE_KEPT, Earlier, Ending, Erasure, FileFacts, Holder, ImagePage,
        Intent, Origin, Page, Progress, ReadRate, Record, RecordId, RecordQuery, RecordStore,
        Replay, UploadState,
    },
    remark::Remark,
    settings::{Store, StoreSettings, StoreUrl, UrlSource, UsedStore},
    tls::TlsSettings,
};
