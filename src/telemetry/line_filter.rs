//! Which log lines are written: those that the filter enables, and at most so many about malformed requests, which
//! clients can cause at will. The lines past the limit are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest,
};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::OptionalWriter},
    layer::{Context, Filter},
};

/// The target of decision lines.
pub(crate) const DECISION: &str = "decision";

/// A filter in the syntax of `RUST_LOG`.
pub(super) struct LineFilter {
    pub(super) wanted: EnvFilter,
    /// Whether decision lines are always written, because they record who received a token.
    pub(super) keeps_decisions: bool,
}

impl LineFilter {
    fn keeps(&self, line: &Metadata<'_>) -> bool {
        self.keeps_decisions && line.target() == DECISION && *line.level() <= Level::INFO
    }
}

impl<S: Subscriber> Filter<S> for LineFilter {
    fn callsite_enabled(&self, line: &'static Metadata<'static>) -> Interest {
        if self.keeps(line) {
            Interest::always()
        } else {
            Filter::<S>::callsite_enabled(&self.wanted, line)
        }
    }

    fn enabled(&self, line: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.keeps(line) || Filter::enabled(&self.wanted, line, context)
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        self.keeps(event.metadata()) || Filter::event_enabled(&self.wanted, event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let wanted = Filter::<S>::max_level_hint(&self.wanted)?;
        Some(if self.keeps_decisions {
            wanted.max(LevelFilter::INFO)
        } else {
            wanted
        })
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        Filter::on_new_span(&self.wanted, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.wanted, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_enter(&self.wanted, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_exit(&self.wanted, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::on_close(&self.wanted, id, context);
    }
}

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
