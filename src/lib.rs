//! imgwire-gate issues Imgwire upload tokens to the users that a chain of policies allows.
//!
//! `docs/architecture.md` walks along one request. The arrows:
//! `main -> commands -> startup -> listeners -> routes -> issue -> {policies, imgwire}`, `routes -> identities -> policies`,
//! `stores -> policies`, `error -> policies`.

pub use policies;

mod answers;
mod assembly;
pub mod cache;
pub mod commands;
pub mod connections;
mod descriptors;
mod digest;
pub mod error;
pub mod explain;
pub mod identities;
pub mod imgwire;
pub mod in_flight;
pub mod issue;
pub mod keys;
mod listeners;
pub mod lookups;
pub mod openapi;
pub mod outbound;
mod playground;
pub mod reload;
pub mod request_id;
pub mod routes;
pub mod rules;
mod session_cookie;
mod session_store;
pub mod settings;
mod shield;
pub mod startup;
pub mod stores;
pub mod telemetry;
mod unix_socket;
