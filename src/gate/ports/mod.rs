//! How policies ask other services and databases: one file for each port.

mod decider;
mod memberships;
mod policy_ports;
mod turns;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::{decider::HttpDecider, memberships::query_memberships};
pub(crate) use self::{policy_ports::PolicyPorts, turns::Turns};

const MAX_ANSWER_BYTES: usize = 64 * 1024;

fn authorization(token: Option<&SecretString>) -> Vec<(HeaderName, HeaderValue)> {
    let value = token.and_then(|token| {
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut value = HeaderValue::from_str(&bearer).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    value
        .map(|value| (header::AUTHORIZATION, value))
        .into_iter()
        .collect()
}
