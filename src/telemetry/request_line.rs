//! The log line of a request that has no decision: of the session, of an allowance, or of a request that was refused
//! before any policy was asked.

use std::{borrow::Cow, net::IpAddr};

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use policies::{Denial, IdentityName, RoutePath, Subject, SubjectId};

use super::{line_limit::REFUSED, request_id::RequestId};

/// The target of the others.
const ANSWERED: &str = "request";

/// How much of a path is logged, in bytes.
const MAX_PATH: usize = 200;

/// What a handler knows of its request, for the line. It travels with the response.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) code: Option<&'static str>,
    pub(crate) denial: Option<Denial>,
    /// Why the gate failed.
    pub(crate) fault: Option<String>,
    pub(crate) subject: Option<(SubjectId, IdentityName)>,
}

impl Account {
    /// Adds to what `response` tells already.
    pub(crate) fn amend(response: &mut HttpResponse, amend: impl FnOnce(&mut Self)) {
        let mut extensions = response.extensions_mut();
        let mut account = extensions.remove::<Self>().unwrap_or_default();
        amend(&mut account);
        extensions.insert(account);
    }

    pub(crate) fn of_subject(response: &mut HttpResponse, subject: &Subject) {
        Self::amend(response, |account| {
            account.subject = Some((subject.id.clone(), subject.identity.clone()));
        });
    }
}

/// Marks the response to a request that has a decision line, and needs no other.
pub(crate) struct HasDecision;

/// A request, as its line describes it.
#[derive(Default)]
pub(crate) struct RequestLine<'a> {
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: Method,
    /// The route that it asked, or asked about.
    pub(crate) route: Option<RoutePath>,
    /// Its path, without the query.
    pub(crate) path: Cow<'a, str>,
}

impl RequestLine<'_> {
    /// Writes the line. A gate that failed is an error; a refusal is not. Without a response there is no status.
    pub(crate) fn write(&self, id: &RequestId, status: Option<StatusCode>, account: &Account) {
        let code = account.code;
        let denial = account.denial.as_ref();
        let subject = account.subject.as_ref();
        let identity = subject
            .map(|(_, identity)| identity)
            .or_else(|| denial.and_then(Denial::identity));
        let reason = denial.map(ToString::to_string);
        let reason = reason.as_deref().or(account.fault.as_deref());
        macro_rules! line {
            ($level:ident, $target:expr, $message:literal) => {
                tracing::$level!(
                    target: $target,
                    request_id = id.as_str(),
                    client = self.client.map(tracing::field::display),
                    method = self.method.as_str(),
                    route = self.route.as_ref().map(RoutePath::as_str),
                    path = shortened(&self.path),
                    status = status.map(|status| status.as_u16()),
                    code,
                    identity = identity.map(IdentityName::as_str),
                    subject = subject.map(|(subject, _)| subject.as_str()),
                    reason,
                    $message
                )
            };
        }
        match status {
            None => line!(info, ANSWERED, "client gone"),
            Some(status) if status.is_server_error() => line!(error, ANSWERED, "request failed"),
            Some(status) if is_malformed(status) => line!(info, REFUSED, "refused"),
            Some(_) => line!(info, ANSWERED, "request answered"),
        }
    }

    /// Writes the line of a preflight, which browsers send before many requests.
    pub(crate) fn write_preflight(&self, id: &RequestId, status: StatusCode, account: &Account) {
        tracing::debug!(
            target: ANSWERED,
            request_id = id.as_str(),
            client = self.client.map(tracing::field::display),
            method = self.method.as_str(),
            path = shortened(&self.path),
            status = status.as_u16(),
            code = account.code,
            "preflight answered"
        );
    }
}

/// Whether `status` says that a request makes no sense, whoever sends it.
fn is_malformed(status: StatusCode) -> bool {
    let judged = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !judged.contains(&status)
}

fn shortened(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_PATH)]
}
