//! `imgwire-gate serve`

use std::{convert::Infallible, fs, sync::Arc, time::Duration};

use policies::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use super::{Config, Failure, VERSION, load_text, process_environment, read_config};
use crate::{
    config::{self, ConfigSource},
    outbound::{HttpClient, OtlpClient, tls_config},
    server::{
        Builder, Stop,
        reload::{ReloadError, Reloader},
        settings::Settings,
    },
    telemetry::{self, LogFormat, TelemetryGuard},
};

/// How often to read a watched file. A change counts only if two reads in a row agree, because the file may still be in
/// the middle of a write.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the gate until SIGTERM or SIGINT. SIGHUP reloads the config file, as does a change of it if `watch` is set.
pub(super) fn serve(config: &Config, watch: bool) -> Result<(), Failure> {
    let source = config.source()?;
    let text = read_config(&source)?;
    let settings = load_text(&config.builder, &source, &text, &process_environment)?;
    let _telemetry = start_telemetry(&settings)?;
    actix_web::rt::System::new().block_on(async {
        let bind = settings.server.bind.to_string();
        let management = settings.management.bind.to_string();
        let application = config.builder.build(settings).map_err(Failure::start)?;
        let address = application
            .address()
            .map_or(bind, |address| address.to_string());
        let management = application
            .management_address()
            .map_or(management, |address| address.to_string());
        let version = VERSION;
        tracing::info!(address, management, version, "listening");
        let file = WatchedFile {
            source: &source,
            loaded: text,
        };
        let reloading = reload(&config.builder, application.reloader(), file, watch);
        tokio::select! {
            done = application.run_until(stop()?) => done.map_err(Failure::other),
            never = reloading => match never? {},
        }
    })
}

/// Starts the log, and the export of traces if the config names a collector.
pub(super) fn start_telemetry(settings: &Settings) -> Result<TelemetryGuard, Failure> {
    let format = log_format(settings.telemetry.log);
    let Some(otlp) = &settings.telemetry.otlp else {
        return Ok(telemetry::start_log(format));
    };
    let tls = tls_config(&settings.authorities);
    // Its calls are not measured, because they are not part of what the gate does for its users.
    let unread = Arc::default();
    let client = HttpClient::new(tls, Arc::new(SystemClock::new()), unread);
    let client = OtlpClient::start(client);
    telemetry::start_log_and_traces(format, otlp.as_str(), client)
        .map_err(|error| Failure::other(format_args!("telemetry.otlp: {error}")))
}

pub(super) fn log_format(format: config::telemetry::LogFormat) -> LogFormat {
    match format {
        config::telemetry::LogFormat::Json => LogFormat::Json,
        config::telemetry::LogFormat::Text => LogFormat::Text,
    }
}

async fn reload(
    builder: &Builder,
    reloader: Arc<Reloader>,
    mut file: WatchedFile<'_>,
    watch: bool,
) -> Result<Infallible, Failure> {
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = file.changed(), if watch => {}
        }
        let name = file.source.to_string();
        let loaded = match file.read() {
            Ok(text) => builder
                .load(&name, text, &process_environment)
                .map_err(ReloadError::from),
            Err(error) => Err(ReloadError::Unreadable(format!("{name}: {error}"))),
        };
        // The reloader logs and counts the result; the gate continues either way.
        let _ = reloader.reload(loaded);
    }
}

/// A file that is polled, because change notifications do not work on every file system.
struct WatchedFile<'a> {
    source: &'a ConfigSource,
    /// The content that was loaded last.
    loaded: String,
}

impl WatchedFile<'_> {
    fn read(&mut self) -> std::io::Result<&str> {
        if let Some(path) = self.source.file() {
            self.loaded = fs::read_to_string(path)?;
        }
        Ok(&self.loaded)
    }

    async fn changed(&self) {
        let Some(path) = self.source.file() else {
            return std::future::pending().await;
        };
        let mut previous = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = fs::read_to_string(path).ok();
            let now = now.filter(|text| *text != self.loaded);
            if now.is_some() && now == previous {
                return;
            }
            previous = now;
        }
    }
}

/// Resolves on SIGTERM or SIGINT.
pub(super) fn stop() -> Result<impl Future<Output = Stop>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Drain,
            // Ctrl-C: an operator is waiting.
            _ = interrupt.recv() => Stop::AtOnce,
        }
    })
}
