//! A limit on the lines that clients can cause at will: a few in a second are written, the others are counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

/// The target of lines about malformed requests.
pub(super) const REFUSED: &str = "refused";

/// How many of these lines are written in a second.
const LINES: u64 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// Drops lines about malformed requests past the limit, and writes how many were dropped.
pub(super) struct LineLimit {
    /// The lines since the timer was started.
    lines: Arc<AtomicU64>,
    timer: Thread,
}

impl LineLimit {
    /// Starts the thread that ends each second.
    ///
    /// # Errors
    ///
    /// If there can be no such thread.
    pub(super) fn start() -> io::Result<Self> {
        let lines = Arc::<AtomicU64>::default();
        let counted = lines.clone();
        let timer = thread::Builder::new()
            .name("log-limit".to_owned())
            .spawn(move || {
                loop {
                    thread::park();
                    thread::sleep(SECOND);
                    let left_out = counted.swap(0, Ordering::Relaxed).saturating_sub(LINES);
                    if left_out > 0 {
                        tracing::warn!(left_out, "some malformed requests were not logged");
                    }
                }
            })?;
        Ok(Self {
            lines,
            timer: timer.thread().clone(),
        })
    }

    fn admits(&self) -> bool {
        let before = self.lines.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.timer.unpark();
        }
        before < LINES
    }
}

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !is_limited(event.metadata()) || self.admits()
    }
}

/// Whether clients can cause a line at will: the gate's own, and those of the HTTP parser, which is asked first.
fn is_limited(line: &Metadata<'_>) -> bool {
    line.target() == REFUSED
        || *line.level() <= Level::WARN && line.target().starts_with("actix_http")
}
