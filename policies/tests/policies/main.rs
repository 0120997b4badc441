//! The policies against plain models of what they promise, without HTTP and without a store.

mod chain;
mod helpers;
mod rate_limit;
mod windows;
