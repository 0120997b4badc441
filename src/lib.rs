//! imgwire-gate.
pub mod routes;
pub mod settings;
