//! The webhook of the sandbox, to which the gate sends events as to an app.

use actix_web::{Error, HttpRequest, HttpResponse, http::header::HeaderMap, web};
use policies::Denial;
use serde::Deserialize;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};

use super::{
    Playground,
    admission::{Key, admit},
    answer,
    events::{Delivery, Header, MAX_BODY_BYTES, PATH},
    without_line,
};
use crate::http::{error::ApiError, refuse, worker};

/// The longest header that is kept.
const MAX_HEADER_BYTES: usize = 1 << 10;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config.service(
        web::resource(PATH)
            .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
            .route(web::get().to(list))
            .route(web::post().to(receive)),
    );
}

#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    after: u64,
}

async fn list(
    request: HttpRequest,
    known: web::Query<Known>,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::InHeader)?;
    Ok(answer(&playground.inbox.after(known.after)))
}

/// The app's side of a delivery. It answers 401 if the signature is not good, and 404 if the config sends the events
/// elsewhere.
async fn receive(
    request: HttpRequest,
    body: web::Bytes,
    playground: web::Data<Playground>,
) -> Result<HttpResponse, Error> {
    admit(&request, Key::NotRequired)?;
    let headers = signed_headers(request.headers());
    let body = String::from_utf8_lossy(&body).into_owned();
    let is_signed = match &playground.config.in_force().verifier {
        Some(verifier) => verifier.verifies(&headers, &body),
        None => return Ok(without_line(HttpResponse::NotFound().finish())),
    };
    playground.inbox.keep(Delivery {
        at: worker(&request).gate.clock.now(),
        is_signed,
        headers,
        body,
    });
    let response = match is_signed {
        true => HttpResponse::NoContent().finish(),
        false => {
            let reason = "the signature of the event is not valid".to_owned();
            refuse(
                &request,
                &ApiError::Denied(Denial::InvalidCredentials(reason)),
            )
        }
    };
    Ok(without_line(response))
}

fn signed_headers(headers: &HeaderMap) -> Vec<Header> {
    let names = [
        HEADER_WEBHOOK_ID,
        HEADER_WEBHOOK_TIMESTAMP,
        HEADER_WEBHOOK_SIGNATURE,
    ];
    let names = names.into_iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= MAX_HEADER_BYTES).then(|| (name, value.to_owned()))
    });
    names.collect()
}
