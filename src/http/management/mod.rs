//! The management API: liveness, readiness, metrics, and endpoints for operators.

pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod log;
pub(crate) mod quota;
pub(crate) mod state;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use actix_web::{
    Error, HttpRequest,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method,
        header::{self, HeaderMap},
    },
    middleware::Next,
    web,
};
use aws_lc_rs::{constant_time, digest};
use policies::Denial;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use super::{Gate, host, refuse, reject_methods, token_request::read_json};
use crate::{
    http::error::{ApiError, MANAGEMENT_BODY_LIMIT, NO_ROUTE},
    imgwire::Client,
};

/// Paths without access control: health checks and Prometheus use any host name, and may not have the token.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

#[derive(Clone)]
pub struct Management {
    pub gate: Arc<Gate>,
    pub client: Rc<Client>,
}

pub fn mount(config: &mut web::ServiceConfig, management: &Management) {
    let resource = |path, allowed| web::resource(path).default_service(reject_methods(allowed));
    let get = |path| resource(path, &[Method::GET]);
    config
        .app_data(web::Data::new(management.clone()))
        .app_data(web::PayloadConfig::new(MANAGEMENT_BODY_LIMIT))
        .service(get("/livez").route(web::get().to(state::live)))
        .service(get("/readyz").route(web::get().to(state::ready)))
        .service(get("/metrics").route(web::get().to(state::metrics)))
        .service(get("/openapi.json").route(web::get().to(state::document)))
        .service(
            resource("/log", &[Method::GET, Method::PUT])
                .route(web::get().to(log::show))
                .route(web::put().to(log::set)),
        )
        .service(resource("/explain", &[Method::POST]).route(web::post().to(explain::explain)))
        .service(
            resource("/quota/{policy}", &[Method::GET, Method::DELETE])
                .app_data(query_config(quota::QUERY))
                .route(web::get().to(quota::show))
                .route(web::delete().to(quota::give_back)),
        )
        .service(
            get("/images")
                .app_data(query_config(images::QUERY))
                .route(web::get().to(images::find)),
        )
        .service(get("/images/export").route(web::get().to(images::export)))
        .service(
            resource("/images/reconcile", &[Method::POST]).route(web::post().to(images::reconcile)),
        )
        .service(
            resource("/subjects/{id}/images", &[Method::DELETE])
                .route(web::delete().to(images::erase)),
        )
        .service(get("/jobs/{id}").route(web::get().to(images::job)))
        .default_service(web::to(|request: HttpRequest| {
            std::future::ready(refuse(&request, &ApiError::NotFound(NO_ROUTE)))
        }));
}

/// Refuses a query that cannot be read with `message`.
fn query_config(message: &'static str) -> web::QueryConfig {
    web::QueryConfig::default().error_handler(move |_, request| {
        let response = refuse(request, &ApiError::BadRequest(message.into()));
        InternalError::from_response(message, response).into()
    })
}

/// Requires operator access for all paths that are not open.
pub async fn guard<B: MessageBody + 'static>(
    gate: Arc<Gate>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !OPEN.contains(&request.path()) {
        let headers = request.headers();
        let access = gate.operators.load();
        let admitted = host::check(headers, request.uri(), &access.hosts)
            .and_then(|()| admit(request.peer_addr(), headers, access.token.as_ref()));
        drop(access);
        if let Err(denial) = admitted {
            let error = ApiError::Denied(denial);
            let response = refuse(request.request(), &error);
            return Ok(request.into_response(response).map_into_right_body());
        }
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_left_body)
}

/// Requires the token or, if none is configured, a request from this machine.
fn admit(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    token: Option<&SecretString>,
) -> Result<(), Denial> {
    let Some(token) = token else {
        // The peer of a Unix socket has no address, but is on this machine.
        let is_here = peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
        return is_here.then_some(()).ok_or(Denial::NotSignedIn);
    };
    let header = headers.get(header::AUTHORIZATION);
    let presented = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match presented {
        Some(presented) if is_same(token.expose_secret(), presented) => Ok(()),
        Some(_) => {
            let reason = "the token is not the management token".to_owned();
            Err(Denial::InvalidCredentials(reason))
        }
        None => Err(Denial::NotSignedIn),
    }
}

pub(crate) fn read<T: DeserializeOwned>(request: &HttpRequest, body: &[u8]) -> Result<T, ApiError> {
    // Pages of other sites cannot send JSON without a preflight request, which this listener rejects.
    read_json(request.headers(), body)
}

/// Compares digests, so that the time reveals nothing about the secrets.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let (one, other) = (digest(one), digest(other));
    constant_time::verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn status(peer: Option<&str>, authorization: Option<&str>, token: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value).expect("the value is valid in a header");
            headers.insert(header::AUTHORIZATION, value);
        }
        let peer = peer.map(|peer| peer.parse().expect("the peer is an address"));
        let token = token.map(SecretString::from);
        match admit(peer, &headers, token.as_ref()) {
            Ok(()) => 200,
            Err(denial) => ApiError::Denied(denial).describe().0.as_u16(),
        }
    }

    const HERE: [Option<&str>; 5] = [
        None,
        Some("127.0.0.1:1"),
        Some("127.9.9.9:1"),
        Some("[::1]:1"),
        Some("[::ffff:127.0.0.1]:1"),
    ];
    const ELSEWHERE: [Option<&str>; 2] = [Some("192.0.2.1:1"), Some("[2001:db8::1]:1")];

    #[test]
    fn without_a_token_only_this_machine_is_admitted() {
        for peer in HERE {
            assert_eq!(status(peer, None, None), 200, "{peer:?}");
        }
        for peer in ELSEWHERE {
            assert_eq!(status(peer, None, None), 401, "{peer:?}");
            assert_eq!(status(peer, Some("Bearer a token"), None), 401, "{peer:?}");
        }
    }

    #[test]
    fn a_configured_token_is_required_of_everyone() {
        let token = Some("a management token");
        for peer in HERE.into_iter().chain(ELSEWHERE) {
            assert_eq!(status(peer, Some("Bearer a management token"), token), 200);
            assert_eq!(status(peer, None, token), 401, "{peer:?}");
            for other in [
                "Bearer ",
                "Bearer a management toke",
                "Bearer a management token ",
                "Basic a",
                "a management token",
            ] {
                assert_eq!(status(peer, Some(other), token), 401, "{other}");
            }
        }
    }
}
