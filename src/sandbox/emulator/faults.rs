//! Which requests fail, and how.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use actix_web::http::Method;

use super::scenario::ErrorType;

#[derive(Clone, Debug)]
pub enum Misbehaviour {
    /// Waits this long before it responds.
    Slow(Duration),
    /// Never responds.
    Hang,
    /// Resets the connection.
    Reset,
    /// Closes the connection without a response.
    Close,
    /// Does what the request asks for, then aborts in the middle of the response.
    BreakOff,
    /// Sends the response byte by byte, with this pause between bytes.
    Trickle(Duration),
    /// Responds with this status, and with this `Retry-After` if it is set.
    Status(u16, Option<String>),
    /// Responds with this error.
    Refuse(ErrorType),
    /// Responds 200 with this body.
    Body(String),
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Token,
    Upload,
    /// The PUT of the bytes.
    Put,
    Image,
    Images,
    Delete,
    BulkDelete,
    CorsOrigins,
}

pub(super) const TOKEN_PATH: &str = "/api/v1/images/token";
pub(super) const UPLOAD_PATH: &str = "/api/v1/images/standard_upload";
pub(super) const IMAGES_PATH: &str = "/api/v1/images/";
pub(super) const BULK_DELETE_PATH: &str = "/api/v1/images/bulk_delete";
pub(super) const CORS_ORIGINS_PATH: &str = "/api/v1/cors_origins/";
pub(super) const PUT_PREFIX: &str = "/upload/";

impl Endpoint {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        Some(match (method.as_str(), path) {
            ("POST", TOKEN_PATH) => Self::Token,
            ("POST", UPLOAD_PATH) => Self::Upload,
            ("POST", BULK_DELETE_PATH) => Self::BulkDelete,
            ("GET", IMAGES_PATH) => Self::Images,
            ("GET", CORS_ORIGINS_PATH) => Self::CorsOrigins,
            ("GET", path) if path.starts_with(IMAGES_PATH) => Self::Image,
            ("DELETE", path) if path.starts_with(IMAGES_PATH) => Self::Delete,
            ("PUT", path) if path.starts_with(PUT_PREFIX) => Self::Put,
            _ => return None,
        })
    }
}

#[derive(Default)]
pub(super) struct Faults {
    asked: HashMap<Endpoint, usize>,
    always: HashMap<Endpoint, Misbehaviour>,
    next: HashMap<Endpoint, VecDeque<Misbehaviour>>,
}

impl Faults {
    /// Records a request, and returns how to misbehave on it.
    pub(super) fn ask(&mut self, endpoint: Endpoint) -> Option<Misbehaviour> {
        *self.asked.entry(endpoint).or_default() += 1;
        let next = self.next.get_mut(&endpoint).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.get(&endpoint).cloned())
    }

    pub(super) fn asked(&self, endpoint: Endpoint) -> usize {
        self.asked.get(&endpoint).copied().unwrap_or_default()
    }

    /// How all requests to an endpoint fail, if they do.
    pub(super) fn at(&self, endpoint: Endpoint) -> Option<&Misbehaviour> {
        self.always.get(&endpoint)
    }

    pub(super) fn set(&mut self, endpoint: Endpoint, how: Option<Misbehaviour>) {
        match how {
            Some(how) => self.always.insert(endpoint, how),
            None => self.always.remove(&endpoint),
        };
    }

    pub(super) fn add_next(
        &mut self,
        endpoint: Endpoint,
        ways: impl IntoIterator<Item = Misbehaviour>,
    ) {
        self.next.entry(endpoint).or_default().extend(ways);
    }
}
