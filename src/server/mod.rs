//! The composition root: builds the gate from its settings, and runs it until it is stopped.

mod audit;
pub(crate) mod build;
pub(crate) mod descriptors;
mod error;
pub mod inspector;
pub(crate) mod listeners;
mod needs;
mod record_tasks;
pub mod reload;
pub mod settings;
pub mod watch;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::rt;
use futures_util::future::{join, join3};
use policies::{BuildError, Clock, PolicyKind, PolicyRegistry as _, SystemClock};
use tokio::sync::oneshot;

pub use self::error::StartError;
use crate::{
    config::{Environment, Faults, ServerSettings},
    http::{Gate, session_store::Sessions},
    identities::IdentityKind,
    outbound::{Authorities, in_flight::InFlight},
    server::{
        audit::Auditor,
        build::{RulesBuilder, operator_access},
        descriptors::Capacity,
        listeners::{
            Closer, Listener, Mount, POLL_INTERVAL, serve_management, serve_public, workers,
        },
        record_tasks::RecordTasks,
        reload::Reloader,
        settings::{Kinds, Settings},
    },
    stores::{Access, Stores},
};

/// How long requests of operators may run on after the last request of a client.
const MANAGEMENT_GRACE: Duration = Duration::from_secs(1);

/// Builds gates with additional kinds of policies and identities.
pub struct Builder {
    kinds: Kinds,
    clock: Arc<dyn Clock>,
}

impl Builder {
    /// Registers your own kind of policy in addition to the built-in ones.
    ///
    /// # Panics
    ///
    /// If a kind of this name exists.
    #[must_use]
    pub fn policy_kind<K: PolicyKind>(mut self) -> Self {
        self.kinds.policies.add::<K>();
        self
    }

    /// Registers your own kind of identity in addition to the built-in ones.
    ///
    /// # Panics
    ///
    /// If a kind of this name exists.
    #[must_use]
    pub fn identity_kind<K: IdentityKind>(mut self) -> Self {
        self.kinds.identities.add::<K>();
        self
    }

    /// Replaces the system clock.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Loads a config file. `text` is its content; `file` is its name in error messages.
    pub fn load(
        &self,
        file: &str,
        text: &str,
        environment: Environment<'_>,
    ) -> Result<Settings, Faults> {
        settings::load_with(&self.kinds, file, text, environment)
    }

    #[must_use]
    pub fn schema(&self) -> schemars::Schema {
        settings::schema(&self.kinds)
    }

    pub fn build(&self, settings: Settings) -> Result<Application, StartError> {
        Application::start(settings, &self.clock, Arc::new(|_| {}))
    }

    /// Also serves the services that `mount` adds to the public listener.
    pub(crate) fn build_with(
        &self,
        settings: Settings,
        mount: Mount,
    ) -> Result<Application, StartError> {
        Application::start(settings, &self.clock, mount)
    }
}

/// A gate whose listeners are bound. [`run_until`](Self::run_until) serves requests.
pub struct Application {
    public: Listener,
    management: Listener,
    reloader: Arc<Reloader>,
    auditor: Arc<Auditor>,
    record_tasks: RecordTasks,
    in_flight: InFlight,
    gate: Arc<Gate>,
    delay: Duration,
    grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The gate keeps accepting requests until load balancers have noticed.
    Drain,
    /// The gate only waits for running requests.
    AtOnce,
}

impl Application {
    /// A builder with the built-in kinds of policies and identities and the system clock.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            kinds: Kinds::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    fn start(settings: Settings, clock: &Arc<dyn Clock>, mount: Mount) -> Result<Self, StartError> {
        settings.log_warnings();
        let capacity = capacity(&settings.server, settings.server.max_connections.get());
        let in_flight = InFlight::new(capacity.in_flight);
        let authorities = Authorities::new(&settings.authorities);
        let tls = authorities.client_config();
        let builder = RulesBuilder::new(&settings, &tls, clock);
        let used = settings.used_stores();
        let stores = Stores::open(used, builder.stores(), Access::ReadWrite(None))?;
        let sessions =
            Sessions::new(settings.session_store(), &stores).map_err(BuildError::from)?;
        let rules = builder.build(&settings, stores, None)?;
        let gate = Arc::new(builder.gate(rules, operator_access(&settings), &in_flight));
        let fixed = settings.fixed.clone();
        let auditor = Arc::new(Auditor::new(
            gate.clone(),
            &settings,
            builder.http().clone(),
        ));
        let record_tasks = RecordTasks::new(
            gate.clone(),
            &settings.imgwire,
            tls.clone(),
            builder.http().clone(),
        );
        let reloader = Reloader::new(
            gate.clone(),
            builder,
            auditor.clone(),
            sessions.clone(),
            authorities,
            fixed,
        );
        let grace = settings.server.shutdown_grace.get();
        let delay = settings.server.shutdown_delay.get();
        let management = serve_management(&settings, gate.clone(), tls.clone())?;
        let reloader = Arc::new(reloader);
        let public = serve_public(
            settings,
            sessions,
            gate.clone(),
            tls,
            mount,
            capacity.connections,
        )?;
        Ok(Self {
            public,
            management,
            reloader,
            auditor,
            record_tasks,
            in_flight,
            gate,
            delay,
            grace,
        })
    }

    #[must_use]
    pub fn reloader(&self) -> Arc<Reloader> {
        self.reloader.clone()
    }

    /// `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.public.address()
    }

    /// `None` for a Unix socket.
    #[must_use]
    pub fn management_address(&self) -> Option<SocketAddr> {
        self.management.address()
    }

    /// Serves requests until `stop` resolves. Then `/readyz` returns 503, and responses close their connections. After
    /// the delay, the gate accepts no connection, and running requests may finish within the grace period.
    pub async fn run_until(self, stop: impl Future<Output = Stop>) -> io::Result<()> {
        let (public_server, public) = self.public.split();
        let (management_server, management) = self.management.split();
        let reloader = self.reloader;
        let key_refresh = rt::spawn(async move { reloader.refresh_keys().await });
        let auditor = self.auditor.clone();
        let mut audit = rt::spawn(async move { auditor.run().await });
        let (stop_record_tasks, record_tasks_stop) = oneshot::channel();
        let record_tasks = rt::spawn(self.record_tasks.run(record_tasks_stop));
        let shutdown = async {
            let delay = match stop.await {
                Stop::Drain => self.delay,
                Stop::AtOnce => Duration::ZERO,
            };
            if let Some(pool) = &self.gate.upstream.pool {
                pool.close();
            }
            self.auditor.stop();
            // It has ended if its receiver is gone.
            let _ = stop_record_tasks.send(());
            // An audit may have an upload to delete.
            let audited = async {
                if tokio::time::timeout(self.grace, &mut audit).await.is_err() {
                    tracing::warn!("the audit of Imgwire did not end in the shutdown grace period");
                    audit.abort();
                }
            };
            join(drain(&self.in_flight, &public, delay, self.grace), audited).await;
            // Probes and scrapes were answered until now.
            let _ = tokio::time::timeout(MANAGEMENT_GRACE, management.close()).await;
            management.stop().await;
            key_refresh.abort();
            record_tasks.abort();
            tracing::info!("stopped");
        };
        let (public, management, ()) = join3(public_server, management_server, shutdown).await;
        public.and(management)
    }
}

/// The configured limits, reduced to fit into the limit on open files.
fn capacity(server: &ServerSettings, max_connections: usize) -> Capacity {
    let limit = descriptors::raise_limit();
    let wanted = Capacity {
        connections: max_connections,
        in_flight: server.max_in_flight.get(),
    };
    let capacity = Capacity::within(limit, wanted, workers(server));
    if capacity.connections < max_connections {
        tracing::warn!(
            limit,
            max_connections,
            connections = capacity.connections,
            in_flight = capacity.in_flight,
            hint = "raise the limit (`ulimit -n`, `LimitNOFILE=`), or lower max_connections",
            "open file limit too low for max_connections"
        );
    }
    capacity
}

/// Lets requests come until load balancers have noticed, and then finishes those that run.
async fn drain(in_flight: &InFlight, public: &Closer, delay: Duration, grace: Duration) {
    tracing::info!(in_flight = in_flight.unfinished(), "draining");
    in_flight.start_draining();
    let finished = async {
        // Running requests need time, too.
        tokio::time::sleep(delay.min(grace / 2)).await;
        public.close().await;
        // A request may run on after its connection has ended.
        while in_flight.unfinished() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!(
            in_flight = in_flight.unfinished(),
            "shutdown grace period exceeded"
        );
    }
    public.stop().await;
}
