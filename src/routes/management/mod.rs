//! The management listener: whether the gate lives, whether it is ready, what it counted, and, for whoever may
//! ask, why it decides as it does.

pub(crate) mod explain;
pub(crate) mod log;
pub(crate) mod quota;
pub(crate) mod state;

use std::{net::SocketAddr, sync::Arc};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap},
    web,
};
use aws_lc_rs::{constant_time, digest};
use policies::Denial;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;

use super::{
    Gate,
    body::{Object, is_json},
};
use crate::error::ApiError;

/// What the management listener knows.
#[derive(Clone)]
pub struct Management {
    /// What all workers share.
    pub gate: Arc<Gate>,
    /// What opens the endpoints that tell or change more, from other machines.
    pub token: Option<SecretString>,
}

/// Mounts the management endpoints.
pub fn mount(config: &mut web::ServiceConfig, management: &Management) {
    config
        .app_data(web::Data::new(management.clone()))
        .service(web::resource("/livez").route(web::get().to(state::live)))
        .service(web::resource("/readyz").route(web::get().to(state::ready)))
        .service(web::resource("/metrics").route(web::get().to(state::metrics)))
        .service(web::resource("/openapi.json").route(web::get().to(state::document)))
        .service(
            web::resource("/log")
                .route(web::get().to(log::show))
                .route(web::put().to(log::set)),
        )
        .service(web::resource("/explain").route(web::post().to(explain::explain)))
        .service(
            web::resource("/quota/{policy}")
                .route(web::get().to(quota::show))
                .route(web::delete().to(quota::give_back)),
        );
}

/// Lets in who is on this machine, or has the token.
fn admit(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    token: Option<&SecretString>,
) -> Result<(), ApiError> {
    // The peer of a Unix socket has no address, and is on this machine.
    if peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback()) {
        return Ok(());
    }
    let header = headers.get(header::AUTHORIZATION);
    let presented = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match (token, presented) {
        (Some(token), Some(presented)) if is_same(token.expose_secret(), presented) => Ok(()),
        (_, Some(_)) => {
            let reason = "it is not the management token".to_owned();
            Err(ApiError::Denied(Denial::InvalidCredentials(reason)))
        }
        (_, None) => Err(ApiError::Denied(Denial::NotSignedIn)),
    }
}

fn admitted(request: &HttpRequest, management: &Management) -> Result<(), ApiError> {
    let token = management.token.as_ref();
    admit(request.peer_addr(), request.headers(), token)
}

/// Reads the JSON object that one who may ask has sent.
fn read<T: DeserializeOwned>(
    request: &HttpRequest,
    body: &[u8],
    management: &Management,
) -> Result<T, ApiError> {
    admitted(request, management)?;
    // Only a page that may send JSON here may ask: others meet a preflight, which nobody answers.
    if !is_json(request.headers()) {
        return Err(ApiError::UnsupportedMediaType);
    }
    let Object(sent) = serde_json::from_slice(body).map_err(|_| ApiError::BadRequest)?;
    Ok(sent)
}

/// Compares in a time that tells nothing.
fn is_same(one: &str, other: &str) -> bool {
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
            let value = HeaderValue::from_str(value).expect("the value is a header's");
            headers.insert(header::AUTHORIZATION, value);
        }
        let peer = peer.map(|peer| peer.parse().expect("the peer is an address"));
        let token = token.map(SecretString::from);
        match admit(peer, &headers, token.as_ref()) {
            Ok(()) => 200,
            Err(error) => error.describe().0.as_u16(),
        }
    }

    #[test]
    fn only_this_machine_or_the_token_opens_the_endpoints() {
        let token = Some("a management token");
        let bearer = Some("Bearer a management token");
        for peer in [
            None,
            Some("127.0.0.1:1"),
            Some("127.9.9.9:1"),
            Some("[::1]:1"),
            Some("[::ffff:127.0.0.1]:1"),
        ] {
            assert_eq!(status(peer, None, None), 200, "{peer:?}");
        }
        for peer in [Some("192.0.2.1:1"), Some("[2001:db8::1]:1")] {
            assert_eq!(status(peer, bearer, token), 200);
            assert_eq!(status(peer, None, token), 401);
            assert_eq!(status(peer, None, None), 401);
            assert_eq!(status(peer, bearer, None), 401);
            for other in [
                "Bearer ",
                "Bearer a management toke",
                "Basic a",
                "a management token",
            ] {
                assert_eq!(status(peer, Some(other), token), 401, "{other}");
            }
        }
    }
}
