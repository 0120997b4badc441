//! Reads the config file: its sections, values and secrets, with the position of every error.
//!
//! `server::settings` reads the sections that name kinds of policies, identities or stores, because it knows the kinds.

pub(crate) mod document;
mod fault;
mod host_pattern;
pub mod imgwire;
pub mod origin;
pub mod outbound;
pub mod secret;
pub mod server;
pub mod session;
mod session_cookie;
pub(crate) mod suggestion;
pub mod telemetry;

pub use self::{
    fault::Faults,
    imgwire::ImgwireSettings,
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    session::SessionSettings,
    telemetry::TelemetrySettings,
};
