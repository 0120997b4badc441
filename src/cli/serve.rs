//! `imgwire-gate serve`

use std::sync::Arc;

use policies::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use super::{Config, Failure, VERSION, process_environment};
use crate::{
    config,
    outbound::{HttpClient, OtlpClient, tls_config},
    server::{Stop, settings::Settings, watch::ConfigWatch},
    telemetry::{self, LogFormat, TelemetryGuard},
};

/// Runs the gate until SIGTERM or SIGINT. SIGHUP reloads the config, as does a change of one of its files if `watch` is set.
pub(super) fn serve(config: &Config, watch: bool) -> Result<(), Failure> {
    let source = config.source()?;
    let mut config_watch = ConfigWatch::new(&source, &config.builder, &process_environment)
        .map_err(|error| Failure::Config(format!("{source}: {error}")))?;
    let settings = config_watch
        .load()
        .map_err(|error| Failure::Config(error.to_string()))?;
    let _telemetry = start_telemetry(&settings)?;
    actix_web::rt::System::new().block_on(async {
        // Before the log says that the gate listens.
        let hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
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
        let reloading = config_watch.run(application.reloader(), hangup, watch);
        tokio::select! {
            done = application.run_until(stop()?) => done.map_err(Failure::other),
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
