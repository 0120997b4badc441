//! Delivers events about uploads to the app.
//!
//! The store keeps an event until the app has accepted it, so the app gets it at least once, whatever fails. Deliveries are
//! bounded in number, bytes and time, and never delay other work.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use policies::{Clock, Fault};
use uuid::Uuid;

use super::event_receiver::{EventReceiver, TIMEOUT};
use crate::{
    outbound::HttpClient,
    stores::{RecordStore, StoredEvent},
    telemetry::{DeliveryOutcome, Metrics},
};

/// How many deliveries run at once. The gate takes so many events at a time.
const AT_ONCE: u32 = 16;

/// If a gate ends, the events that it has taken are due again after this time, which is longer than a delivery takes.
const LEASE: Duration = TIMEOUT.saturating_add(Duration::from_secs(5));

/// How long the gate waits if no event is due.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// While the app accepts nothing, no event is sent.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// There is at most one warning in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// How many events to drop at once, so that the changes of requests wait for few others.
const DROP_PAGE: u32 = 500;

const DROP_PAUSE: Duration = Duration::from_millis(100);

/// Delivers the events of a store, as one of the gates that share it.
pub struct EventSender {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// How many batches in a row failed as a whole.
    failed_batches: u32,
    warned_at: Option<Duration>,
    batch: Option<Batch>,
}

/// Events that this gate has taken.
struct Batch {
    records: Arc<dyn RecordStore>,
    waiting: Vec<Uuid>,
    delivered: Vec<Uuid>,
    /// With the time of the next delivery.
    failed: Vec<(Uuid, Timestamp)>,
}

impl EventSender {
    pub fn new(http: HttpClient, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            http,
            clock,
            metrics,
            failed_batches: 0,
            warned_at: None,
            batch: None,
        }
    }

    /// Delivers some of the events that are due. Returns how long to wait before the next call.
    pub async fn work(
        &mut self,
        records: &Arc<dyn RecordStore>,
        receiver: &EventReceiver,
    ) -> Result<Duration, Fault> {
        let now = self.clock.now();
        let events = records.take_events(now, later(now, LEASE), AT_ONCE).await?;
        let is_full = events.len() >= AT_ONCE as usize;
        if events.is_empty() {
            return Ok(IDLE_PAUSE);
        }
        let batch = self.batch.insert(Batch {
            records: records.clone(),
            waiting: events.iter().map(|event| event.id).collect(),
            delivered: Vec::new(),
            failed: Vec::new(),
        });
        let (http, clock) = (&self.http, &*self.clock);
        let mut deliveries = stream::iter(events)
            .map(async |event| {
                let delivered = receiver.deliver(&event, http, clock.now()).await;
                (event, delivered)
            })
            .buffer_unordered(AT_ONCE as usize);
        let mut error = None;
        while let Some((event, result)) = deliveries.next().await {
            batch.waiting.retain(|id| *id != event.id);
            let outcome = match result {
                Ok(()) => {
                    batch.delivered.push(event.id);
                    DeliveryOutcome::Delivered
                }
                Err(undelivered) => {
                    let next = later(clock.now(), backoff(event.failures));
                    batch.failed.push((event.id, next));
                    log_failure(&event, &undelivered);
                    error = Some(undelivered.to_string());
                    DeliveryOutcome::Failed
                }
            };
            self.metrics.event_deliveries(outcome).inc();
        }
        drop(deliveries);
        let (delivered, failed) = (batch.delivered.len(), batch.failed.len());
        self.finish().await?;
        if let Some(error) = error {
            self.warn(failed, &error);
        }
        if delivered > 0 {
            if self.failed_batches > 0 {
                tracing::info!("events are delivered again");
            }
            self.failed_batches = 0;
            return Ok(if is_full { Duration::ZERO } else { IDLE_PAUSE });
        }
        self.failed_batches = self.failed_batches.saturating_add(1);
        Ok(doubled(FIRST_PAUSE, self.failed_batches - 1, MAX_PAUSE))
    }

    /// Tells the store what became of the batch. Events whose delivery has not ended are due at once.
    pub async fn finish(&mut self) -> Result<(), Fault> {
        let Some(batch) = self.batch.take() else {
            return Ok(());
        };
        let now = self.clock.now();
        let mut failed = batch.failed;
        failed.extend(batch.waiting.into_iter().map(|id| (id, now)));
        batch.records.finish_events(batch.delivered, failed).await
    }

    fn warn(&mut self, failed: usize, error: &str) {
        let now = self.clock.elapsed();
        let next = self.warned_at.map(|at| at.saturating_add(WARNING_INTERVAL));
        if next.is_none_or(|next| now >= next) {
            self.warned_at = Some(now);
            tracing::warn!(failed, error, "events not delivered");
        }
    }
}

fn log_failure(event: &StoredEvent, error: &dyn fmt::Display) {
    let (event_id, event_type): (_, &str) = (event.id, event.kind.into());
    let failures = event.failures.saturating_add(1);
    tracing::debug!(%event_id, event_type, failures, %error, "event not delivered");
}

/// How long an event waits that failed again, after so many earlier failures. The waits differ, so that events which failed
/// together are not sent together again.
fn backoff(failures: u32) -> Duration {
    doubled(FIRST_BACKOFF, failures, MAX_BACKOFF).mul_f64(0.75 + fastrand::f64() / 4.0)
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(max)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Drops events that are older than `keep`, and measures those that wait.
pub async fn drop_expired(
    records: &Arc<dyn RecordStore>,
    clock: &dyn Clock,
    metrics: &Metrics,
    keep: Duration,
) -> Result<(), Fault> {
    let before = clock.now().saturating_sub(keep).unwrap_or(Timestamp::MIN);
    loop {
        let backlog = records.backlog().await?;
        let wait = backlog.oldest.map_or(0, |oldest| {
            clock.now().duration_since(oldest).as_secs().max(0)
        });
        let pending = i64::try_from(backlog.events).unwrap_or(i64::MAX);
        metrics.events_pending().set(pending);
        metrics.events_oldest_seconds().set(wait);
        let Some(oldest) = backlog.oldest.filter(|oldest| *oldest < before) else {
            return Ok(());
        };
        let dropped = records.drop_events(before, DROP_PAGE).await?;
        if dropped == 0 {
            return Ok(());
        }
        metrics.events_dropped().inc_by(dropped);
        tracing::error!(dropped, %oldest, "events dropped that were not delivered in time");
        tokio::time::sleep(DROP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_maximum_and_differ() {
        for (failures, nominal) in [(0, 5), (1, 10), (4, 80), (9, 2560), (10, 3600), (99, 3600)] {
            let nominal = Duration::from_secs(nominal);
            let waits: Vec<_> = (0..50).map(|_| backoff(failures)).collect();
            let fits = |wait: &Duration| *wait <= nominal && *wait >= nominal.mul_f64(0.75);
            assert!(waits.iter().all(fits), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}");
        }
    }
}
