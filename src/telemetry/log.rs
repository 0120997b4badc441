//! The log. A separate thread writes it to standard error, so that requests do not wait for it. It has the lines that the
//! filter enables, and at most so many about malformed requests, which clients can cause at will.

use std::{
    env,
    io::{self, ErrorKind, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use opentelemetry_http::HttpClient;
use opentelemetry_otlp::ExporterBuildError;
use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest,
};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    fmt::{self, MakeWriter, writer::OptionalWriter},
    layer::{Context, Filter},
    prelude::*,
    reload,
};

use super::{
    log_text::TextFormat,
    losses::{self, LINES, LastReport},
    recent,
    request_line::REFUSED,
    traces::{RootSpan, Traces},
};

/// The maximum number of queued lines. Further lines are dropped, so that requests do not wait.
const BUFFERED_LINES: usize = 4096;

/// How long the writer sleeps after a flush. Otherwise every request would pay for a system call that wakes the writer.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// How long the writer waits for a standard error that is not blocking and takes nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// In bytes.
const BUFFER: usize = 128 * 1024;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Writes the queued lines and exports the last spans when it is dropped.
#[must_use = "the log ends when the guard is dropped"]
pub struct TelemetryGuard {
    // Must be dropped first, because it may write to the log.
    _traces: Option<Traces>,
    _last_report: LastReport,
    _log: WorkerGuard,
}

/// Starts the log of this process, with the filter in `RUST_LOG` (default: `info`).
pub fn start_log(format: LogFormat) -> TelemetryGuard {
    start(format, None)
}

/// Like [`start_log`], but also exports traces to the collector at `otlp` with `client`.
///
/// # Errors
///
/// If the exporter cannot be built, for example because one of its environment variables is invalid.
pub fn start_log_and_traces(
    format: LogFormat,
    otlp: &str,
    client: impl HttpClient + 'static,
) -> Result<TelemetryGuard, ExporterBuildError> {
    Ok(start(format, Some(Traces::start(otlp, client)?)))
}

fn start(format: LogFormat, traces: Option<Traces>) -> TelemetryGuard {
    let (writer, log) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .thread_name("log-writer")
        .finish(BatchingWriter::new(io::stderr()));
    // A second start keeps the first one's log.
    let _ = losses::UNQUEUED_LINES.set(writer.error_counter());
    let wanted = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let lossy = || quiet_libraries(EnvFilter::builder().parse_lossy(&wanted));
    let filter = LineFilter {
        wanted: filter(&wanted).unwrap_or_else(|_| lossy()),
        keeps_decisions: false,
    };
    let (filter, handle) = reload::Layer::new(filter);
    // If a test starts the log a second time, the first one stays.
    let _ = FILTER.set(handle);
    let lines = fmt::layer().with_writer(LimitedWriter {
        writer,
        limit: LineLimit::start(),
    });
    let lines = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => lines.event_format(TextFormat::of_stderr()).boxed(),
    };
    // A layer without a filter, such as `None`, would have every disabled callsite evaluated again and again: that
    // costs 8 % of a request.
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    let _ = match &traces {
        Some(traces) => registry.with(traces.layer()).try_init(),
        None => registry.try_init(),
    };
    RootSpan::init();
    losses::start_reports();
    TelemetryGuard {
        _traces: traces,
        _last_report: LastReport,
        _log: log,
    }
}

/// The current filter.
static FILTER: OnceLock<reload::Handle<LineFilter, Registry>> = OnceLock::new();

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(directives).map(quiet_libraries)
}

fn quiet_libraries(filter: EnvFilter) -> EnvFilter {
    // actix-session warns about each cookie that it cannot decrypt, which clients can cause at will.
    let directives = ["actix_server=warn", "actix_session=error"];
    let directives = directives.map(|text| text.parse().expect("the directive is valid"));
    directives
        .into_iter()
        .fold(filter, EnvFilter::add_directive)
}

/// The current filter in the syntax of `RUST_LOG`.
#[must_use]
pub fn log_filter() -> String {
    let filter = FILTER.get();
    let text =
        filter.and_then(|filter| filter.with_current(|filter| filter.wanted.to_string()).ok());
    text.unwrap_or_default()
}

/// Changes the filter: a level (`debug`), levels by target (`info,imgwire_gate=debug`), or nothing for the default.
/// Decision lines are always written.
///
/// # Errors
///
/// If the directives are invalid. The filter then does not change.
pub fn set_log_filter(directives: &str) -> Result<(), String> {
    let filter = filter(directives).map_err(|error| error.to_string())?;
    let handle = FILTER.get().ok_or("this process has no log")?;
    let filter = LineFilter {
        wanted: filter,
        keeps_decisions: true,
    };
    handle.reload(filter).map_err(|error| error.to_string())
}

/// Writes several lines at once. The log thread flushes it when its queue is empty.
struct BatchingWriter<W> {
    out: W,
    lines: Vec<u8>,
}

impl<W: Write> BatchingWriter<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            lines: Vec::with_capacity(BUFFER),
        }
    }

    /// Writes the lines. Counts those that cannot be written.
    fn write_out(&mut self) {
        let mut rest = &*self.lines;
        while !rest.is_empty() {
            let error = match self.out.write(rest) {
                Ok(written) if written > 0 => {
                    rest = &rest[written..];
                    continue;
                }
                Ok(_) => "it takes no more",
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Another process made it so. Meanwhile the queue takes the lines.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(RETRY_PAUSE);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => "its reader is gone",
                Err(error) if error.kind() == ErrorKind::StorageFull => "the disk is full",
                Err(_) => "it cannot be written",
            };
            let lost = memchr::memchr_iter(b'\n', rest).count();
            LINES.failed.fetch_add(lost as u64, Ordering::Relaxed);
            LINES.set_reason(format!("standard error: {error}"));
            break;
        }
        self.lines.clear();
    }
}

impl<W: Write> Write for BatchingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.len() + line.len() > BUFFER {
            self.write_out();
        }
        self.lines.extend_from_slice(line);
        recent::push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out();
        thread::sleep(FLUSH_PAUSE);
        Ok(())
    }
}

/// The target of decision lines.
pub(crate) const DECISION: &str = "decision";

/// A filter in the syntax of `RUST_LOG`.
struct LineFilter {
    wanted: EnvFilter,
    /// Whether decision lines are always written, because they record who received a token.
    keeps_decisions: bool,
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

/// The maximum number of lines about malformed requests per second.
const LINES_PER_SECOND: u64 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// Drops lines about malformed requests past the limit, and logs how many it dropped.
struct LineLimit {
    /// The number of lines since the timer started.
    lines: Arc<AtomicU64>,
    /// Without it there is no limit.
    timer: Option<Thread>,
}

impl LineLimit {
    /// Starts the timer thread.
    fn start() -> Self {
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
                    LINES.refused.fetch_add(left_out, Ordering::Relaxed);
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
struct LimitedWriter {
    writer: NonBlocking,
    limit: LineLimit,
}

impl<'a> MakeWriter<'a> for LimitedWriter {
    type Writer = OptionalWriter<NonBlocking>;

    fn make_writer(&'a self) -> Self::Writer {
        OptionalWriter::some(self.writer.clone())
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Self::Writer {
        if is_doubled(line) || !self.limit.admits(line) {
            OptionalWriter::none()
        } else {
            self.make_writer()
        }
    }
}

/// Whether a line is about a malformed request.
fn is_limited(line: &Metadata<'_>) -> bool {
    line.target() == REFUSED
}

/// Whether the gate writes a line of its own about the same, in its own words: what the HTTP parser refuses.
fn is_doubled(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::WARN && line.target().starts_with("actix_http")
}
