//! The policies against plain models of what they promise, without HTTP and without a store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod chain;
mod chain_together;
mod counter;
mod denial;
mod expression;
mod expression_bounds;
mod expression_lists;
mod facts;
mod helpers;
mod imgwire_limits;
mod keyed_limit;
mod kinds;
mod permit;
mod quota;
mod quota_store;
mod rate_limit;
mod rate_limit_store;
mod remote;
mod scripted;
mod signed_in;
mod storage;
mod storage_settings;
mod trace;
mod upload_intent;
mod values;
mod windows;
mod workspace_member;
mod workspace_member_settings;
