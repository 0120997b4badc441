//! `imgwire-gate serve`

use std::sync::Arc;

use policies::SystemClock;
use tokio::sync::oneshot;

use super::{
    Config, Failure, VERSION, process_environment,
    running_gate::{self, Source},
    signals::Signals,
    unreadable,
};
use crate::{
    config,
    outbound::{HttpClient, OtlpClient, tls_config},
    server::{Application, Stop, settings::Settings, watch::ConfigWatch},
    telemetry::{self, LogFormat, TelemetryGuard},
};

/// Runs the gate until a signal stops it. SIGHUP reloads the config, as does a change of one of its files if `watch` is set.
pub(super) fn serve(config: &Config, watch: bool, signals: &Signals) -> Result<(), Failure> {
    let source = config.source()?;
    let mut config_watch = ConfigWatch::new(&source, &config.builder, &process_environment)
        .map_err(|error| unreadable(&source, &error))?;
    let settings = config_watch
        .load()
        .map_err(|error| Failure::Config(error.to_string()))?;
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
        let reloading = config_watch.run(
            application.reloader(),
            async || signals.hangup().await,
            watch,
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
        done = application.run_until(stop) => done.map_err(|error| Failure::system("the gate stopped", &error)),
        () = second => {
            tracing::warn!("stopped by a second signal");
            Ok(())
        }
    }
}
