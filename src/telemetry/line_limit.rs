//! Limits the lines about malformed requests, which clients can cause at will. The lines past the limit are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Filter};

/// The target of lines about malformed requests.
pub(super) const REFUSED: &str = "refused";

/// The maximum number of these lines per second.
const LINES_PER_SECOND: u64 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// Drops lines about malformed requests past the limit, and logs how many it dropped.
pub(super) struct LineLimit {
    /// The number of lines since the timer started.
    lines: Arc<AtomicU64>,
    /// Without it there is no limit.
    timer: Option<Thread>,
}

impl LineLimit {
    /// Starts the timer thread.
    pub(super) fn start() -> Self {
        let lines = Arc::<AtomicU64>::default();
        let counted = lines.clone();
        let timer = thread::Builder::new().name("log-limit".to_owned());
        let timer = timer.spawn(move || {
            loop {
                thread::park();
                thread::sleep(SECOND);
                let left_out = counted
                    .swap(0, Ordering::Relaxed)
                    .saturating_sub(LINES_PER_SECOND);
                if left_out > 0 {
                    tracing::warn!(left_out, "malformed requests not logged");
                }
            }
        });
        Self {
            lines,
            timer: timer.ok().map(|timer| timer.thread().clone()),
        }
    }

    fn admits(&self) -> bool {
        let Some(timer) = &self.timer else {
            return true;
        };
        let before = self.lines.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            timer.unpark();
        }
        before < LINES_PER_SECOND
    }
}

impl<S: Subscriber> Filter<S> for LineLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        !is_limited(event.metadata()) || self.admits()
    }
}

/// Whether a line is about a malformed request: from the gate, or from the HTTP parser.
fn is_limited(line: &Metadata<'_>) -> bool {
    line.target() == REFUSED
        || *line.level() <= Level::WARN && line.target().starts_with("actix_http")
}
