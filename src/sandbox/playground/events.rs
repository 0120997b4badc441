//! The events that the sandbox gets in place of an app: their URL, their signatures, and the last ones for the page.

use std::{collections::VecDeque, net::SocketAddr};

use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use url::Url;

use crate::{config::ServiceUrl, server::settings::Settings};

/// A header of a delivery.
pub(super) type Header = (&'static str, String);

pub(super) const PATH: &str = "/playground/events";

/// How many events are kept, and how many bytes of them.
const MAX_EVENTS: usize = 100;
const MAX_BYTES: usize = 256 << 10;

/// The largest body of an event.
pub(super) const MAX_BODY_BYTES: usize = 16 << 10;

/// The URL of `[events]`, if it names the sandbox. The port may be any, because the sandbox takes another one if that of
/// the config is taken.
fn own_url(settings: &Settings) -> Option<Url> {
    let (events, _) = settings.events.as_ref()?;
    let url = Url::parse(events.url.as_str()).ok()?;
    let is_own = url.scheme() == "http" && events.url.is_private() && url.path() == PATH;
    is_own.then_some(url)
}

/// Corrects the port of `[events] url`, if it names the sandbox.
pub(crate) fn point_events_at(settings: &mut Settings, address: SocketAddr) {
    if own_url(settings).is_none() {
        return;
    }
    let url = ServiceUrl::try_from(format!("http://{address}{PATH}"));
    if let (Some((events, _)), Ok(url)) = (&mut settings.events, url) {
        events.url = url;
    }
}

/// Verifies signatures with the secrets of the config.
pub(super) struct Verifier(Vec<Webhook>);

impl Verifier {
    /// `None` if the events go elsewhere.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        own_url(settings)?;
        let (_, keys) = settings.events.as_ref()?;
        let keys = keys.0.iter();
        let webhooks = keys.map(|key| Webhook::from_bytes(key.expose_secret().to_vec()));
        webhooks.collect::<Result<_, _>>().ok().map(Self)
    }

    pub(super) fn verifies(&self, headers: &[Header], body: &str) -> bool {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            let Ok(value) = value.parse() else {
                return false;
            };
            map.insert(*name, value);
        }
        let mut webhooks = self.0.iter();
        webhooks.any(|webhook| webhook.verify(body.as_bytes(), &map).is_ok())
    }
}

/// The last events, the oldest first.
#[derive(Default)]
pub(crate) struct Inbox(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// How many came so far.
    received: u64,
}

/// A POST, as it came.
pub(super) struct Delivery {
    pub(super) at: Timestamp,
    pub(super) is_signed: bool,
    pub(super) headers: Vec<Header>,
    pub(super) body: String,
}

impl Delivery {
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        headers.map(|(_, value)| value.len()).sum::<usize>() + self.body.len()
    }
}

impl Inbox {
    pub(super) fn keep(&self, delivery: Delivery) {
        let mut kept = self.0.lock();
        kept.received += 1;
        kept.bytes += delivery.size();
        kept.deliveries.push_back(delivery);
        while kept.deliveries.len() > MAX_EVENTS || kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.deliveries.pop_front() else {
                break;
            };
            kept.bytes -= oldest.size();
        }
    }

    /// The events after the first `known` ones, the oldest first.
    pub(super) fn after(&self, known: u64) -> Value {
        let kept = self.0.lock();
        let new = usize::try_from(kept.received.saturating_sub(known)).unwrap_or(usize::MAX);
        let skipped = kept.deliveries.len().saturating_sub(new);
        let events = kept.deliveries.iter().skip(skipped).map(|delivery| {
            let headers: serde_json::Map<_, _> = delivery
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({
                "receivedAt": delivery.at,
                "signed": delivery.is_signed,
                "headers": headers,
                "body": delivery.body,
            })
        });
        json!({ "received": kept.received, "events": events.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(size: usize) -> Delivery {
        Delivery {
            at: Timestamp::UNIX_EPOCH,
            is_signed: true,
            headers: Vec::new(),
            body: "x".repeat(size),
        }
    }

    fn count(inbox: &Inbox, known: u64) -> (u64, usize) {
        let shown = inbox.after(known);
        let events = shown["events"].as_array().unwrap();
        (shown["received"].as_u64().unwrap(), events.len())
    }

    #[test]
    fn the_last_hundred_events_are_kept() {
        let inbox = Inbox::default();
        assert_eq!(count(&inbox, 0), (0, 0));
        for _ in 0..250 {
            inbox.keep(delivery(10));
        }
        assert_eq!(count(&inbox, 0), (250, 100));
        assert_eq!(count(&inbox, 240), (250, 10));
        assert_eq!(count(&inbox, 250), (250, 0));
        // A page that knows the events of an earlier run.
        assert_eq!(count(&inbox, 9000), (250, 0));
    }

    #[test]
    fn the_bytes_of_the_kept_events_are_bounded() {
        let inbox = Inbox::default();
        for _ in 0..50 {
            inbox.keep(delivery(MAX_BODY_BYTES));
        }
        assert_eq!(count(&inbox, 0), (50, MAX_BYTES / MAX_BODY_BYTES));
        assert!(inbox.0.lock().bytes <= MAX_BYTES);
    }
}
