//! imgwire-gate issues Imgwire upload tokens to the users that a chain of policies allows.
//!
//! `docs/architecture.md` walks along one request. The arrows:
//! `main -> cli -> server -> http -> gate -> {policies, identities, imgwire, stores}`.

pub use policies;

pub mod cli;
pub mod config;
pub mod gate;
pub mod http;
pub mod identities;
pub mod imgwire;
pub mod outbound;
pub mod server;
pub mod stores;
pub mod telemetry;
