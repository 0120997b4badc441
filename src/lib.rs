//! imgwire-gate.
pub mod identity;
pub mod imgwire;
pub mod routes;
pub mod settings;
pub mod stores;
