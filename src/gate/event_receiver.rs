//! The app as the receiver of events: POSTs that are signed as in the Standard Webhooks specification.

use std::time::Duration;

use actix_web::http::{
    Method,
    header::{self, HeaderName, HeaderValue, InvalidHeaderValue},
};
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook, WebhookError,
};

use crate::{
    config::{EventKeys, EventsSettings},
    outbound::{
        HttpClient, HttpError, OutboundRequest, OutboundResponse, Resend,
        single_flight::ServiceFault,
    },
    stores::StoredEvent,
    telemetry::Point,
};

/// Of one delivery.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The gate reads so much of the body of a response, and ignores it.
const MAX_RESPONSE_BYTES: usize = 4096;

/// Where events go.
pub struct EventReceiver {
    url: String,
    /// One for each secret.
    signers: Vec<Webhook>,
    keep: Duration,
}

/// Why an event was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error(transparent)]
    Refused(#[from] ServiceFault),
    #[error("cannot sign the event: {0}")]
    Unsigned(#[from] WebhookError),
    #[error("cannot sign the event: {0}")]
    Header(#[from] InvalidHeaderValue),
}

impl EventReceiver {
    pub fn new(settings: &EventsSettings, keys: &EventKeys) -> Result<Self, WebhookError> {
        let keys = keys.0.iter();
        let signers = keys.map(|key| Webhook::from_bytes(key.expose_secret().to_vec()));
        Ok(Self {
            url: settings.url.as_str().to_owned(),
            signers: signers.collect::<Result<_, _>>()?,
            keep: settings.keep.get(),
        })
    }

    /// How long an event waits before it is dropped.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.keep
    }

    pub(super) async fn deliver(
        &self,
        event: &StoredEvent,
        http: &HttpClient,
        now: Timestamp,
    ) -> Result<(), Undelivered> {
        let body = body(event);
        let headers = self.headers(event, &body, now)?;
        let sent = self.send(http, Method::POST, headers, body.into());
        let response = sent.await.map_err(ServiceFault::from)?;
        if response.status.is_success() {
            Ok(())
        } else {
            Err(response.unexpected_status().into())
        }
    }

    /// The headers of a delivery at `now`.
    fn headers(
        &self,
        event: &StoredEvent,
        body: &str,
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Undelivered> {
        let (id, time) = (format!("msg_{}", event.id), now.as_second());
        let signers = self.signers.iter();
        let signatures = signers.map(|signer| signer.sign(&id, time, body.as_bytes()));
        let signatures: Vec<String> = signatures.collect::<Result<_, _>>()?;
        let header = |name: &'static str, text: &str| {
            HeaderValue::from_str(text).map(|value| (HeaderName::from_static(name), value))
        };
        let json = HeaderValue::from_static("application/json");
        Ok(vec![
            (header::CONTENT_TYPE, json),
            header(HEADER_WEBHOOK_ID, &id)?,
            header(HEADER_WEBHOOK_TIMESTAMP, &time.to_string())?,
            header(HEADER_WEBHOOK_SIGNATURE, &signatures.join(" "))?,
        ])
    }

    async fn send(
        &self,
        http: &HttpClient,
        method: Method,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<OutboundResponse, HttpError> {
        let request = OutboundRequest {
            method,
            url: &self.url,
            headers,
            body,
            timeout: TIMEOUT,
            max_response_bytes: MAX_RESPONSE_BYTES,
            // The store repeats a failed delivery later. A slow app must not get it twice at once.
            resend: Resend::Unsafe,
        };
        http.send_for_head(request).await
    }

    /// Tries for `doctor` whether the app can be reached. This sends no event, so any response will do.
    pub(crate) async fn try_out(&self, http: &HttpClient) -> Point {
        const PART: &str = "events.url";

        let sent = self.send(http, Method::HEAD, Vec::new(), Bytes::new());
        match sent.await {
            Ok(response) => {
                let status = response.status.as_u16();
                Point::ok(PART, format!("reachable, answers HEAD with {status}"))
            }
            Err(error) => {
                let remedy = "correct `url` in [events]; if it is right, look at the log of your app and check the \
                              network to it";
                Point::failed(PART, error.to_string(), remedy)
            }
        }
    }
}

/// It is the same in all deliveries.
fn body(event: &StoredEvent) -> String {
    let kind: &str = event.kind.into();
    let StoredEvent {
        at, sequence, data, ..
    } = event;
    // The data is JSON, and the other values need no escapes.
    format!(r#"{{"type":"{kind}","timestamp":"{at}","sequence":{sequence},"data":{data}}}"#)
}
