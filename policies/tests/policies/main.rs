//! The policies against plain models of what they promise, without HTTP and without a store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends where it fails, and its world has the machine's clock"
)]

mod chain;
mod helpers;
mod rate_limit;
mod windows;
