//! imgwire-gate issues Imgwire upload tokens to the users that a chain of policies allows.
//!
//! `docs/architecture.md` follows one request. Modules depend on each other in this direction: `main -> cli -> server
//! -> http -> gate -> {policies, identities, imgwire, stores}`.

pub use policies;

pub mod cli;
pub mod config;
pub mod gate;
pub mod http;
pub mod identities;
pub mod imgwire;
pub mod outbound;
pub mod sandbox;
pub mod server;
pub mod stores;
pub mod telemetry;
