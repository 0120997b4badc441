//! Limits the lines about malformed requests, which clients can cause at will. The lines past the limit are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::fmt::{MakeWriter, writer::OptionalWriter};

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

    /// Whether to write a line.
    fn admits(&self, line: &Metadata<'_>) -> bool {
        let Some(timer) = self.timer.as_ref().filter(|_| is_limited(line)) else {
            return true;
        };
        let before = self.lines.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            timer.unpark();
        }
        before < LINES_PER_SECOND
    }
}

/// Writes the lines that the limit admits.
pub(super) struct LimitedWriter {
    pub(super) writer: NonBlocking,
    pub(super) limit: LineLimit,
}

impl<'a> MakeWriter<'a> for LimitedWriter {
    type Writer = OptionalWriter<NonBlocking>;

    fn make_writer(&'a self) -> Self::Writer {
        OptionalWriter::some(self.writer.clone())
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Self::Writer {
        if self.limit.admits(line) {
            self.make_writer()
        } else {
            OptionalWriter::none()
        }
    }
}

/// Whether a line is about a malformed request: from the gate, or from the HTTP parser.
fn is_limited(line: &Metadata<'_>) -> bool {
    line.target() == REFUSED
        || *line.level() <= Level::WARN && line.target().starts_with("actix_http")
}
