//! Requests that run: their place within `max_in_flight`, and what is logged if the client disconnects.

use std::mem;

use actix_web::{HttpRequest, HttpResponse};

use super::{
    context::{Gate, worker},
    envelope,
    error::{ApiError, refuse},
};
use crate::outbound::in_flight::{Running, with_place};

pub(super) fn enter(gate: &Gate) -> Option<Running> {
    let running = gate.in_flight.enter();
    if running.is_none() {
        gate.metrics.overloaded().inc();
    }
    running
}

/// Does `work` if a place is free.
pub(super) async fn in_place(
    request: &HttpRequest,
    work: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let Some(running) = enter(&worker(request).gate) else {
        return refuse(request, &ApiError::Overloaded);
    };
    let unanswered = Unanswered(request);
    let response = with_place(running.in_flight(), work).await;
    mem::forget(unanswered);
    response
}

/// Logs a request whose client disconnects before the response: the framework then drops the handler.
pub(super) struct Unanswered<'a>(pub(super) &'a HttpRequest);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        envelope::log_unanswered(self.0);
    }
}
