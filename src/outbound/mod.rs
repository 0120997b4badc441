//! HTTP calls to other services: bounded in time and size, without redirects, and without a proxy from the environment.
//!
//! - `client`: the HTTP client for all services except Imgwire.
//! - `call`: the one retry rule, the retry budget, and which connections a call uses.
//! - `connector`, `authorities`, `tls_error`, `reason`: how a connection is opened, which certificates are trusted, and why one
//!   cannot be secured or fails.
//! - `tls_material`: certificates and keys of one connection's own.
//! - `stream`, `framing`: one final response per request.
//! - `json`, `redirect`: how responses are read, and where a redirect leads.
//! - `skew`: how far the clock of a service differs.
//! - `single_flight`, `cache`, `digest`: how responses are cached.
//! - `in_flight`: the requests that run, and how one gives up its place while it waits.
//! - `otlp`: the client of the trace exporter.

mod authorities;
pub mod cache;
mod call;
mod client;
mod connector;
pub(crate) mod digest;
mod error;
mod framing;
pub mod in_flight;
mod json;
mod json_members;
mod otlp;
mod reason;
mod redirect;
pub(crate) mod single_flight;
mod skew;
mod stream;
mod suppress_awc_tasks;
mod tls_error;
mod tls_material;

pub use self::{
    authorities::Authorities,
    client::{HttpClient, Outbound},
    connector::{USER_AGENT, tls_config},
    error::HttpError,
    otlp::OtlpClient,
    tls_material::TlsMaterial,
};
pub(crate) use self::{
    call::{Peer, Resend, Response, call},
    client::{OutboundRequest, OutboundResponse},
    connector::{PoolSettings, client, is_tls, plain, secure, socket_client},
    framing::Framing,
    json::{InvalidResponse, JsonObject, parse as parse_json, wrong_type},
    json_members::{find_members, read_members},
    reason::reason,
    skew::clock_skew,
    tls_material::{IdentityError, Verification},
};
