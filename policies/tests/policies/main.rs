//! The policies against plain models of what they promise, without HTTP and without a store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod chain;
mod counter;
mod expression;
mod expression_bounds;
mod facts;
mod helpers;
mod keyed_limit;
mod rate_limit;
mod windows;
mod workspace_member;
