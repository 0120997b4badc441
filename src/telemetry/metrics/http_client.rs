//! The metrics of calls to other services.

use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::http::{Method, StatusCode, Uri};
use policies::Clock;
use prometheus_client::metrics::histogram::Histogram;

use super::{ErrorType, Metrics, UrlPart};
use crate::telemetry::request_line::known_method;

/// Measures the attempts of calls to one service.
pub(crate) struct HttpClientMetrics {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    address: UrlPart,
    port: UrlPart,
    /// The histograms of the most frequent result, status 200, so that these attempts look nothing up.
    get_ok: OnceLock<Histogram>,
    post_ok: OnceLock<Histogram>,
}

/// A running attempt. It is measured when it is dropped.
#[must_use]
pub(crate) struct HttpAttempt<'a> {
    metrics: &'a HttpClientMetrics,
    method: &'static str,
    started: Duration,
    result: Option<Result<StatusCode, &'static str>>,
    abandoned: &'a Cell<&'static str>,
}

impl HttpClientMetrics {
    /// For the service of `url`.
    pub(crate) fn new(url: &Uri, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Self {
        let is_https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Self {
            clock: clock.clone(),
            metrics: metrics.clone(),
            address: UrlPart(url.host().unwrap_or_default().into()),
            port: UrlPart(port.to_string().into()),
            get_ok: OnceLock::new(),
            post_ok: OnceLock::new(),
        }
    }

    /// Starts to measure an attempt. Unless it [ends](HttpAttempt::end), its error type is what `abandoned` holds when
    /// it is dropped.
    pub(crate) fn start<'a>(
        &'a self,
        method: &Method,
        abandoned: &'a Cell<&'static str>,
    ) -> HttpAttempt<'a> {
        HttpAttempt {
            metrics: self,
            method: known_method(method),
            started: self.clock.elapsed(),
            result: None,
            abandoned,
        }
    }

    fn observe(&self, method: &'static str, result: Result<StatusCode, &'static str>, took: f64) {
        let usual = match (method, result) {
            ("GET", Ok(StatusCode::OK)) => Some(&self.get_ok),
            ("POST", Ok(StatusCode::OK)) => Some(&self.post_ok),
            _ => None,
        };
        match usual {
            Some(usual) => usual
                .get_or_init(|| self.histogram(method, result))
                .observe(took),
            None => self.histogram(method, result).observe(took),
        }
    }

    fn histogram(
        &self,
        method: &'static str,
        result: Result<StatusCode, &'static str>,
    ) -> Histogram {
        let result = result.map(registered);
        let is_error = |status: &StatusCode| status.is_client_error() || status.is_server_error();
        let error_type = match result {
            Ok(status) => Some(status).filter(is_error).map(ErrorType::Status),
            Err(name) => Some(ErrorType::NoResponse(name)),
        };
        let (address, port) = (self.address.clone(), self.port.clone());
        self.metrics
            .http_client_request_duration_seconds(method, result.ok(), address, port, error_type)
            .clone()
    }
}

/// A status that is not registered counts as the x00 of its class, and an invalid one as 500 (RFC 9110, 15), so that a
/// service cannot add hundreds of time series.
fn registered(status: StatusCode) -> StatusCode {
    if status.canonical_reason().is_some() {
        return status;
    }
    match status.as_u16() {
        100..=199 => StatusCode::CONTINUE,
        200..=299 => StatusCode::OK,
        300..=399 => StatusCode::MULTIPLE_CHOICES,
        400..=499 => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl HttpAttempt<'_> {
    /// Ends the attempt with the status of its response, or with the name of its error.
    pub(crate) fn end(mut self, result: Result<StatusCode, &'static str>) {
        self.result = Some(result);
    }
}

impl Drop for HttpAttempt<'_> {
    fn drop(&mut self) {
        let took = self.metrics.clock.elapsed().saturating_sub(self.started);
        let result = self.result.unwrap_or(Err(self.abandoned.get()));
        let took = took.as_secs_f64();
        self.metrics.observe(self.method, result, took);
    }
}
