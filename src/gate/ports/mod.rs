//! How policies ask other services and databases: one file for each port.

mod decider;
mod http_memberships;
mod policy_ports;
mod sql_memberships;
mod turns;

use std::sync::OnceLock;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use policies::{Fault, Member, PolicyName};
use secrecy::{ExposeSecret as _, SecretString};

pub use self::{
    decider::HttpDecider, http_memberships::HttpMemberships, sql_memberships::SqlMemberships,
};
pub(crate) use self::{policy_ports::PolicyPorts, turns::Turns};
use crate::outbound::answers::ServiceFault;

const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Warns once that a source of memberships does not name the workspace that it means.
#[derive(Default)]
struct SpellingWarning(OnceLock<()>);

impl SpellingWarning {
    fn check(&self, policy: &PolicyName, member: &Member) {
        if member.workspace.is_none() {
            self.0.get_or_init(|| {
                tracing::warn!(
                    policy = policy.as_str(),
                    "the source of memberships names no workspace: each spelling of an id has limits of its own"
                );
            });
        }
    }
}

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
