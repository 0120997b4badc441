//! Running requests: the limit `max_in_flight`, and the log line if a client disconnects.

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

/// Runs `work` if fewer than `max_in_flight` requests are running.
pub(super) async fn run_within_limit(
    request: &HttpRequest,
    work: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let Some(running) = enter(&worker(request).gate) else {
        return refuse(request, &ApiError::Overloaded);
    };
    let log_on_disconnect = LogOnDisconnect(request);
    let response = with_place(running.in_flight(), work).await;
    mem::forget(log_on_disconnect);
    response
}

/// Logs the request when it is dropped. The framework drops a handler if its client disconnects before the response.
pub(super) struct LogOnDisconnect<'a>(pub(super) &'a HttpRequest);

impl Drop for LogOnDisconnect<'_> {
    fn drop(&mut self) {
        envelope::log_disconnect(self.0);
    }
}
