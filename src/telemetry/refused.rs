//! One line for each request that was refused before any policy was asked.

use std::net::IpAddr;

use actix_web::http::{Method, StatusCode};

use super::line_limit::REFUSED;
use crate::request_id::RequestId;

/// How much of a path is logged, in characters.
const MAX_PATH: usize = 200;

/// A request that was refused.
pub(crate) struct Refused<'a> {
    /// Its id.
    pub(crate) request_id: &'a RequestId,
    /// The client's address, unless that is a Unix socket.
    pub(crate) client: Option<IpAddr>,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its path, without the query.
    pub(crate) path: &'a str,
    /// The status of the response.
    pub(crate) status: StatusCode,
    /// The code of the response.
    pub(crate) code: &'static str,
    /// Why it was refused, where the code does not say it all.
    pub(crate) reason: Option<&'a str>,
}

/// Logs a refusal, within the limit on such lines.
pub(crate) fn refused(refused: &Refused<'_>) {
    let path = refused.path.char_indices().nth(MAX_PATH);
    let path = path.map_or(refused.path, |(end, _)| &refused.path[..end]);
    tracing::info!(
        target: REFUSED,
        request_id = refused.request_id.as_str(),
        client = refused.client.map(tracing::field::display),
        method = refused.method.as_str(),
        path,
        status = refused.status.as_u16(),
        code = refused.code,
        reason = refused.reason,
        "refused"
    );
}
