//! `POST <route>`: a token, if every policy agrees.

use actix_web::{HttpRequest, HttpResponse, rt, web};
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument as _;

use super::{body, caller, facts, ratelimit_fields, refuse, route, worker};
use crate::{
    error::ApiError,
    issue::{Ending, Report, issue},
    telemetry,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    upload_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

pub(super) async fn post(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let worker = worker(&request).clone();
    let gate = worker.gate.clone();
    let Some(running) = gate.in_flight.enter() else {
        return refuse(&request, &ApiError::Overloaded);
    };
    let body = match body::read(&request, payload, gate.body_limit).await {
        Ok(body) => body,
        Err(error) => return refuse(&request, &error),
    };
    let upload = match facts(&request, body) {
        Ok(upload) => upload,
        Err(error) => return refuse(&request, &error),
    };
    let route = route(&request).clone();
    let caller = caller(&request);
    // In a task of its own: a client that goes away ends this handler, and what is held is settled all the
    // same.
    let task = async move {
        let report = issue(
            &route.chain,
            &worker.client,
            &*worker.gate.clock,
            &upload,
            &caller,
        )
        .await;
        telemetry::record(&worker.gate.metrics, &caller.request_id, &upload, &report);
        drop(running);
        report
    };
    match rt::spawn(task.in_current_span()).await {
        Ok(report) => answer(&request, &report),
        Err(_) => refuse(&request, &ApiError::Internal),
    }
}

fn answer(request: &HttpRequest, report: &Report) -> HttpResponse {
    let mut response = match &report.ending {
        Ending::Issued(token) => HttpResponse::Ok().json(Answer {
            upload_token: &token.token,
            expires_at: token.expires_at,
        }),
        Ending::Denied(_, denial) => refuse(request, &ApiError::Denied(denial.clone())),
        Ending::Faulted(..) => refuse(request, &ApiError::Internal),
        Ending::ImgwireFailed(_) => refuse(request, &ApiError::ImgwireFailed),
    };
    if matches!(response.status().as_u16(), 200 | 429) {
        ratelimit_fields::insert(response.headers_mut(), &report.limits);
    }
    response
}
