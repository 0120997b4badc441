//! What policies ask other services: one port that `policies` declares, one file.

mod decider;
mod memberships;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use policies::Fault;
use secrecy::{ExposeSecret as _, SecretString};

pub(crate) use self::{decider::HttpDecider, memberships::HttpMemberships};
use crate::answers::ServiceFault;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// `Authorization` with a bearer token, if there is one.
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

fn fault(error: ServiceFault) -> Fault {
    Fault::Service(Box::new(error))
}
