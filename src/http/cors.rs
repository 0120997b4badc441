//! Cross-origin resource sharing: which pages of other origins may read responses.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    dev::ServiceRequest,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
};

use crate::config::origin::{Origin, OriginPattern, Trust};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, ratelimit, ratelimit-policy, retry-after, www-authenticate",
);
const VARY: HeaderValue = HeaderValue::from_static("origin");
const VARY_OF_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
const TRUE: HeaderValue = HeaderValue::from_static("true");

#[derive(Clone, Default)]
pub struct Cors {
    allowed_origins: Arc<[OriginPattern]>,
}

impl Cors {
    #[must_use]
    pub fn new(allowed_origins: &[OriginPattern]) -> Self {
        Self {
            allowed_origins: allowed_origins.into(),
        }
    }

    #[must_use]
    pub(super) fn grant(&self, request: &HeaderMap) -> Grant {
        if self.allowed_origins.is_empty() {
            return Grant::Disabled;
        }
        let mut values = request.get_all(header::ORIGIN);
        let (Some(value), None) = (values.next(), values.next()) else {
            return Grant::Nothing;
        };
        let origin = value.to_str().ok().and_then(Origin::parse);
        let trust = origin.and_then(|origin| {
            let patterns = self.allowed_origins.iter();
            patterns.filter_map(|pattern| pattern.trust(&origin)).max()
        });
        trust.map_or(Grant::Nothing, |trust| Grant::To(value.clone(), trust))
    }
}

/// The responses that a page may read.
#[derive(Clone, Debug)]
pub(super) enum Grant {
    /// `allowed_origins` is empty, so responses do not depend on the origin.
    Disabled,
    Nothing,
    /// All responses to this origin; with [`Trust::Credentials`], also those to requests with cookies.
    To(HeaderValue, Trust),
}

impl Grant {
    /// Adds the headers that let the page read a response.
    pub(super) fn apply(&self, response: &mut HeaderMap) {
        if !matches!(self, Self::Disabled) {
            response.append(header::VARY, VARY);
        }
        if let Self::To(origin, trust) = self {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            if *trust == Trust::Credentials {
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
        }
    }

    /// Whether this is a preflight request that the gate answers.
    pub(super) fn is_preflight(&self, request: &ServiceRequest) -> bool {
        !matches!(self, Self::Disabled)
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ORIGIN)
            && request
                .headers()
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The response to a preflight request, which allows any header. `None` if the origin is not allowed.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Option<HttpResponse> {
        let Self::To(..) = self else {
            return None;
        };
        let mut response = HttpResponse::Ok();
        response
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE))
            .insert_header((header::VARY, VARY_OF_PREFLIGHT));
        if let Some(wanted) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
        }
        Some(response.finish())
    }
}
