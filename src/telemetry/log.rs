//! The log: written to standard error by a thread of its own, so that no request waits for it.

use std::{
    env,
    io::{self, BufWriter, Stderr, Write},
    sync::OnceLock,
    thread,
    time::Duration,
};

use opentelemetry_http::HttpClient;
use opentelemetry_otlp::ExporterBuildError;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, fmt, prelude::*, reload};

use super::{line_filter::LineFilter, line_limit::LineLimit, traces::Traces};

/// How many lines may wait to be written. Further lines are dropped, so that no request waits.
const BUFFERED_LINES: usize = 4096;

/// How long the writer waits for more lines after it has written all. Without this, every request would pay for a
/// system call that wakes the writer.
const GATHERING: Duration = Duration::from_millis(5);

/// In bytes.
const BUFFER: usize = 128 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Writes the rest of the log, and sends the last spans, when it is dropped.
#[must_use = "the log ends when this is dropped"]
pub struct TelemetryGuard {
    // Dropped first, because it may write to the log.
    _traces: Option<Traces>,
    _log: WorkerGuard,
}

/// Starts the log of this process: lines at `info` and above, or what `RUST_LOG` says.
pub fn start_log(format: LogFormat) -> TelemetryGuard {
    start(format, None)
}

/// Like [`start_log`], and also sends traces to the collector at `otlp`, with `client`.
///
/// # Errors
///
/// If the exporter cannot be built, for example because a variable of its environment is invalid.
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
        .finish(GatheringWriter(BufWriter::with_capacity(
            BUFFER,
            io::stderr(),
        )));
    let wanted = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let lossy = || quieter(EnvFilter::builder().parse_lossy(&wanted));
    let filter = LineFilter {
        wanted: filter(&wanted).unwrap_or_else(|_| lossy()),
        keeps_decisions: false,
    };
    let (filter, handle) = reload::Layer::new(filter);
    // A second start, in a test, keeps the first one's log.
    let _ = FILTER.set(handle);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        // Without its thread there is no limit, and every line is written.
        .with(LineLimit::start().ok())
        .with(traces.as_ref().map(Traces::layer))
        .try_init();
    TelemetryGuard {
        _traces: traces,
        _log: log,
    }
}

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<LineFilter, Registry>> = OnceLock::new();

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(directives).map(quieter)
}

fn quieter(filter: EnvFilter) -> EnvFilter {
    // actix-session warns of every cookie that does not decrypt, and clients send what they like.
    let directives = ["actix_server=warn", "actix_session=error"];
    let directives = directives.map(|text| text.parse().expect("the directive is valid"));
    directives
        .into_iter()
        .fold(filter, EnvFilter::add_directive)
}

/// The filter in force, in the syntax of `RUST_LOG`.
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
/// If the directives are invalid. The filter then stays as it is.
pub fn set_log_filter(directives: &str) -> Result<(), String> {
    let filter = filter(directives).map_err(|error| error.to_string())?;
    let handle = FILTER.get().ok_or("this process has no log")?;
    let filter = LineFilter {
        wanted: filter,
        keeps_decisions: true,
    };
    handle.reload(filter).map_err(|error| error.to_string())
}

/// Writes several lines at once. The log's thread flushes it whenever no line waits.
struct GatheringWriter(BufWriter<Stderr>);

impl Write for GatheringWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(GATHERING);
        Ok(())
    }
}
