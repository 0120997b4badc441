//! The log: written to standard error by a thread of its own, so that no request waits for it.

use std::{
    env,
    io::{self, BufWriter, Stderr, Write},
    sync::OnceLock,
    thread,
    time::Duration,
};

use actix_web::{Error, body::MessageBody, dev::ServiceRequest, dev::ServiceResponse};
use tracing::{Span, level_filters::LevelFilter};
use tracing_actix_web::RootSpanBuilder;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, fmt, prelude::*, reload};

use super::{line_filter::LineFilter, line_limit::LineLimit};
use crate::{config::telemetry::LogFormat, http::request_id::RequestId};

/// How many lines may wait to be written; what comes then is dropped rather than waited for.
const BUFFERED_LINES: usize = 4096;

/// How long the writer lets lines gather once it has written all there were. A writer that waited for each
/// line would cost every request a system call to wake it.
const GATHERING: Duration = Duration::from_millis(5);

/// What lines of one gathering are put together in, in bytes.
const BUFFER: usize = 128 * 1024;

/// Writes what is left of the log when it is dropped.
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(#[expect(dead_code, reason = "dropped, never read")] WorkerGuard);

/// Starts the log of this process: lines at `info` and above, or what `RUST_LOG` says.
pub fn start_log(format: LogFormat) -> LogGuard {
    let (writer, guard) = NonBlockingBuilder::default()
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
    let layer = fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry()
        .with(filter)
        // Without its thread there is no limit, and every line is written.
        .with(LineLimit::start().ok());
    let _ = match format {
        LogFormat::Json => registry
            .with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
    };
    LogGuard(guard)
}

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<LineFilter, Registry>> = OnceLock::new();

/// Which lines are written: `info`, or what `directives` say, as `RUST_LOG` does.
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

/// Which lines are written, while the log runs.
#[must_use]
pub fn log_filter() -> String {
    let filter = FILTER.get();
    let text =
        filter.and_then(|filter| filter.with_current(|filter| filter.wanted.to_string()).ok());
    text.unwrap_or_default()
}

/// Writes other lines from here on: a level (`debug`), levels by target (`info,imgwire_gate=debug`), or nothing for the
/// default. The lines that tell of decisions are always written.
///
/// # Errors
///
/// What is wrong with the directives; the log stays as it is then.
pub fn set_log_filter(directives: &str) -> Result<(), String> {
    let filter = filter(directives).map_err(|error| error.to_string())?;
    let handle = FILTER.get().ok_or("this process has no log")?;
    let filter = LineFilter {
        wanted: filter,
        keeps_decisions: true,
    };
    handle.reload(filter).map_err(|error| error.to_string())
}

/// Writes lines that come together in one go. The thread that writes flushes whenever no line waits.
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

/// The span of a request, at `debug`. A span costs more than all policies together, so at `info` there is
/// none, and every line about a request names its id itself.
pub struct RootSpan;

impl RootSpan {
    /// Whether the log wants spans at all; if not, nothing of them is to cost a request anything.
    #[must_use]
    pub fn is_enabled() -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }
}

impl RootSpanBuilder for RootSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = RequestId::assign(request);
        tracing::debug_span!("request", request_id = id.as_str())
    }

    fn on_request_end<B: MessageBody>(_: Span, _: &Result<ServiceResponse<B>, Error>) {}
}
