//! Reads the config file: its sections, values and secrets, with the position of every fault.
//!
//! A section that names kinds of policies, identities or stores is read where these are known: in `server::settings`.

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
pub mod telemetry;

pub use self::{
    fault::Faults,
    imgwire::ImgwireSettings,
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    session::SessionSettings,
    telemetry::TelemetrySettings,
};
