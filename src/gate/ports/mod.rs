//! Implementations of the ports through which policies call other services and databases.

mod decider;
mod lookup_slots;
mod memberships;
mod policy_ports;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::{decider::HttpDecider, memberships::query_memberships};
pub(crate) use self::{lookup_slots::LookupSlots, policy_ports::PolicyPorts};

const MAX_RESPONSE_BYTES: usize = 64 * 1024;

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
