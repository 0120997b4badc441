//! Reads the config file: its sections, values and secrets, with the position of every error.
//!
//! `server::settings` reads the sections that name kinds of policies, identities or stores, because it knows the kinds.

mod common;
pub(crate) mod document;
mod duplicates;
pub mod events;
pub(crate) mod fault;
pub(crate) mod files;
pub mod imgwire;
pub(crate) mod named;
pub mod origin;
pub mod outbound;
mod places;
mod schema_forms;
pub mod secret;
mod secret_text;
pub mod server;
pub(crate) mod service_url;
pub mod session;
pub(crate) mod shape;
pub mod source;
mod statements;
pub(crate) mod suggestion;
mod syntax;
pub mod telemetry;
pub mod uploads;
mod variables;

pub use self::{
    common::{CommonSettings, Messages},
    events::{EventKeys, EventsSettings},
    fault::Faults,
    files::ReadFiles,
    imgwire::ImgwireSettings,
    secret::Environment,
    server::{ManagementSettings, ServerSettings},
    service_url::ServiceUrl,
    session::SessionSettings,
    source::ConfigSource,
    telemetry::TelemetrySettings,
    uploads::UploadsSettings,
};
