//! HTTP calls to other services: bounded in time and size, without redirects, and without a proxy from the environment.
//!
//! - `call`: the one retry rule, and which connections a call uses.
//! - `connector`, `dial`, `tls`: how a connection is made.
//! - `stream`, `framing`: what a connection returns: one final response per request.
//! - `json`: how the answers are read.

pub(crate) mod answers;
mod budget;
pub mod cache;
mod call;
mod client;
mod connector;
mod dial;
pub(crate) mod digest;
mod error;
mod framing;
pub mod in_flight;
mod json;
mod otlp;
mod stream;
mod suppress_awc_tasks;
mod tls;

pub(crate) use self::{
    call::{Peer, Repeat, call},
    client::Outgoing,
    connector::{PoolSettings, client, is_tls, plain},
    framing::Framing,
    json::{InvalidResponse, Object, parse as parse_json, wrong_type},
};
pub use self::{
    client::{HttpClient, Outbound},
    connector::USER_AGENT,
    error::HttpError,
    otlp::OtlpClient,
    tls::tls_config,
};
