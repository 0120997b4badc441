//! `imgwire-gate serve`

use std::path::PathBuf;

use imgwire_gate::{startup::Application, telemetry};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, load};

/// Runs the gate until SIGTERM or SIGINT.
pub(crate) fn serve(config: Option<PathBuf>) -> Result<(), Failure> {
    let settings = load(config)?;
    let _log = telemetry::start_log(settings.telemetry.log);
    actix_web::rt::System::new().block_on(async {
        let bind = settings.server.bind.to_string();
        let management = settings.management.bind.to_string();
        let application = Application::build(settings).map_err(Failure::other)?;
        let address = application
            .address()
            .map_or(bind, |address| address.to_string());
        let management = application
            .management_address()
            .map_or(management, |address| address.to_string());
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(address, management, version, "listening");
        application.run_until(stop()?).await.map_err(Failure::other)
    })
}

/// Resolves on SIGTERM or SIGINT.
pub(super) fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
