//! Log lines and spans that are lost: counted for the metrics, and logged once a minute.
//!
//! A process has one log and one exporter, so the counts are those of the process.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tracing_appender::non_blocking::ErrorCounter;

use super::Metrics;

/// How often the counts are read.
const TICK: Duration = Duration::from_secs(1);

/// The number of ticks between two reports of one kind.
const TICKS_PER_REPORT: u32 = 60;

/// The reasons for which something is lost: the label of its metric, and the number.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The queue of the background thread was full.
    pub(super) queue_full: AtomicU64,
    /// Lines: the limit of lines about malformed requests. Spans: the collector refused them.
    pub(super) refused: AtomicU64,
    /// Standard error or the collector could not be reached.
    pub(super) failed: AtomicU64,
    /// Why the last one failed or was refused.
    reason: Mutex<Option<String>>,
}

impl Lost {
    const fn new() -> Self {
        Self {
            queue_full: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reason: Mutex::new(None),
        }
    }

    pub(super) fn set_reason(&self, reason: String) {
        *self.reason.lock() = Some(reason);
    }
}

pub(super) static LINES: Lost = Lost::new();
pub(super) static SPANS: Lost = Lost::new();

/// Counts the lines that did not fit into the queue of the log.
pub(super) static UNQUEUED_LINES: OnceLock<ErrorCounter> = OnceLock::new();

fn unqueued_lines() -> u64 {
    let lines = UNQUEUED_LINES.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(lines).unwrap_or(u64::MAX)
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl Metrics {
    pub(super) fn record_losses(&self) {
        for (reason, lost) in [
            ("queue_full", unqueued_lines()),
            ("limited", load(&LINES.refused)),
            ("write_failed", load(&LINES.failed)),
        ] {
            let metric = self.log_lines_lost(reason);
            metric.inner().fetch_max(lost, Ordering::Relaxed);
        }
        for (reason, lost) in [
            ("queue_full", load(&SPANS.queue_full)),
            ("refused", load(&SPANS.refused)),
            ("unreachable", load(&SPANS.failed)),
        ] {
            let metric = self.spans_lost(reason);
            metric.inner().fetch_max(lost, Ordering::Relaxed);
        }
    }
}

/// Reports what was lost since the last report.
#[derive(Default)]
struct Reporter {
    lines: Reported,
    spans: Reported,
}

#[derive(Default)]
struct Reported {
    total: u64,
    /// Until the next report.
    ticks_left: u32,
}

impl Reported {
    /// Returns how many are to be reported.
    fn due(&mut self, total: u64) -> Option<u64> {
        self.ticks_left = self.ticks_left.saturating_sub(1);
        let new = total.saturating_sub(self.total);
        (new > 0 && self.ticks_left == 0).then_some(new)
    }

    fn report(&mut self, total: u64) {
        *self = Self {
            total,
            ticks_left: TICKS_PER_REPORT,
        };
    }
}

impl Reporter {
    fn tick(&mut self) {
        // Lines past the limit are reported by the limit.
        let total = || unqueued_lines() + load(&LINES.failed);
        let lines = total();
        if let Some(lost) = self.lines.due(lines) {
            let reason = LINES.reason.lock().clone();
            let reason = reason.as_deref().unwrap_or("the log is written too slowly");
            tracing::warn!(lost, total = lines, reason, "log lines lost");
            // If this line is lost as well, the next tick tries again.
            if total() == lines {
                self.lines.report(lines);
            }
        }
        let spans = load(&SPANS.queue_full) + load(&SPANS.refused) + load(&SPANS.failed);
        if let Some(lost) = self.spans.due(spans) {
            let reason = SPANS.reason.lock().clone();
            let reason = reason.as_deref().unwrap_or("the collector is too slow");
            tracing::warn!(lost, total = spans, reason, "spans lost");
            self.spans.report(spans);
        }
    }
}

static REPORTER: Mutex<Option<Reporter>> = Mutex::new(None);

/// Starts the reports. Another call does nothing.
pub(super) fn start_reports() {
    if REPORTER.lock().replace(Reporter::default()).is_some() {
        return;
    }
    let reporting = thread::Builder::new().name("log-losses".to_owned());
    // Without the thread, the metrics still have the counts.
    let _ = reporting.spawn(|| {
        loop {
            thread::sleep(TICK);
            if let Some(reporter) = REPORTER.lock().as_mut() {
                reporter.tick();
            }
        }
    });
}

/// Reports the rest when it is dropped.
pub(super) struct LastReport;

impl Drop for LastReport {
    fn drop(&mut self) {
        if let Some(reporter) = REPORTER.lock().as_mut() {
            (reporter.lines.ticks_left, reporter.spans.ticks_left) = (0, 0);
            reporter.tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_reported_at_once_and_then_once_a_minute() {
        let mut reported = Reported::default();
        assert_eq!(reported.due(0), None);
        assert_eq!(reported.due(3), Some(3));
        reported.report(3);
        for _ in 1..TICKS_PER_REPORT {
            assert_eq!(reported.due(10), None);
        }
        assert_eq!(reported.due(10), Some(7));
        reported.report(10);
        for _ in 0..2 * TICKS_PER_REPORT {
            assert_eq!(reported.due(10), None);
        }
        assert_eq!(reported.due(11), Some(1));
    }
}
