//! Unexpected statuses, and where a redirect leads. The gate follows no redirect, because it would send credentials to other
//! hosts and trust their answers.

use actix_web::http::header::{self, HeaderMap};
use policies::excerpt;

use super::{client::OutboundResponse, single_flight::ServiceFault};

impl OutboundResponse {
    /// The fault of a service that answers with an unexpected status.
    pub(crate) fn unexpected_status(&self) -> ServiceFault {
        let status = self.status.as_u16();
        match target(&self.headers) {
            Some(target) if self.status.is_redirection() => {
                ServiceFault::Redirect { status, target }
            }
            _ => ServiceFault::Status(status),
        }
    }
}

/// Returns the start of the target without its query, its fragment and a password, which may be secret.
fn target(headers: &HeaderMap) -> Option<String> {
    let target = headers.get(header::LOCATION)?.to_str().ok()?;
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let target = match target.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            format!("{scheme}//{host}{path}")
        }
        None => target.to_owned(),
    };
    Some(excerpt(&target))
}
