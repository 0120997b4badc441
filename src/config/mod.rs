//! Reads the config file: its sections, values and secrets, with the position of every fault.
//!
//! A section that names kinds of policies, identities or stores is read where these are known: in `server::settings`.

mod common;
pub(crate) mod document;
mod fault;
mod host_pattern;
pub mod imgwire;
pub mod origin;
pub mod outbound;
pub mod secret;
pub mod server;
mod service_url;
pub mod session;
mod session_cookie;
pub mod telemetry;
pub(crate) mod url_template;

pub use self::{
    common::{CommonSettings, Messages},
    fault::Faults,
    imgwire::ImgwireSettings,
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    service_url::ServiceUrl,
    session::SessionSettings,
    telemetry::TelemetrySettings,
};
