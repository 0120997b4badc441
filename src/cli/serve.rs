//! `imgwire-gate serve`

use std::{convert::Infallible, fs, sync::Arc, time::Duration};

use policies::SystemClock;
use tokio::sync::oneshot;

use super::{
    Config, Failure, VERSION, load_text, process_environment, read_config,
    running_gate::{self, Source},
    signals::Signals,
};
use crate::{
    config::{self, ConfigSource},
    outbound::{HttpClient, OtlpClient, tls_config},
    server::{
        Application, Builder, Stop,
        reload::{ReloadError, Reloader},
        settings::Settings,
    },
    telemetry::{self, LogFormat, TelemetryGuard},
};

/// How often to read a watched file. A change counts only if two reads in a row agree, because the file may still be in
/// the middle of a write.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the gate until a signal stops it. SIGHUP reloads the config file, as does a change of it if `watch` is set.
pub(super) fn serve(config: &Config, watch: bool, signals: &Signals) -> Result<(), Failure> {
    let source = config.source()?;
    let text = read_config(&source)?;
    let settings = load_text(&config.builder, &source, &text, &process_environment)?;
    let _telemetry = start_telemetry(&settings)?;
    actix_web::rt::System::new().block_on(async {
        let bind = settings.server.bind.to_string();
        let management_bind = settings.management.bind.clone();
        let application = config.builder.build(settings).map_err(Failure::start)?;
        let address = application
            .address()
            .map_or(bind, |address| address.to_string());
        let management = application
            .management_address()
            .map_or(management_bind.to_string(), |address| address.to_string());
        running_gate::announce(
            &Source::Config(source.clone()),
            &application,
            &management_bind,
        );
        let version = VERSION;
        tracing::info!(address, management, version, "listening");
        let file = WatchedFile {
            source: &source,
            loaded: text,
        };
        let reloading = reload(
            &config.builder,
            application.reloader(),
            file,
            watch,
            signals,
        );
        tokio::select! {
            done = run(application, signals) => done,
            never = reloading => match never {},
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
    signals: &Signals,
) -> Infallible {
    loop {
        tokio::select! {
            () = signals.hangup() => {}
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

/// Runs the gate until a signal stops it. A second one ends it at once.
pub(super) async fn run(application: Application, signals: &Signals) -> Result<(), Failure> {
    signals.start_serving();
    let (stopping, stopped) = oneshot::channel();
    let second = async {
        // The gate has not ended yet, so it receives the first one.
        let _ = stopping.send(signals.next_stop().await);
        signals.next_stop().await;
    };
    let stop = async { stopped.await.unwrap_or(Stop::AtOnce) };
    tokio::select! {
        done = application.run_until(stop) => done.map_err(Failure::other),
        () = second => {
            tracing::warn!("stopped by a second signal");
            Ok(())
        }
    }
}
