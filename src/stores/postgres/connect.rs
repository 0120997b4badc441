//! Connects to the first host that works, and classifies errors of the server.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::FutureExt as _;
use policies::StoreUse;
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, SslMode},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    process_id::process_id,
    transaction::{begin_inspection, in_transaction},
    url::{PostgresUrl, ServerRole, Target},
};
use crate::{
    outbound::reason,
    stores::{
        fault::{StoreFault, Unreachable},
        hosts::Hosts,
        kind::OpenOptions,
        remark::Remark,
    },
};

/// What the server shows of a connection.
const APPLICATION_NAME: &str = concat!("imgwire-gate/", env!("CARGO_PKG_VERSION"));

pub(super) struct Connector {
    /// Without hosts.
    config: Config,
    url: PostgresUrl,
    role: ServerRole,
    tls: MakeRustlsConnect,
    hosts: Hosts,
    /// For one operation.
    timeout: Duration,
    /// Whether the latest connection was to a pooler.
    is_pooled: AtomicBool,
}

/// Closed when dropped.
pub(super) struct Session {
    pub(super) client: Client,
    /// Whether the connection has no server process of its own, so that it must leave nothing in a session.
    pub(super) is_pooled: bool,
    _driver: JoinSet<()>,
}

impl Connector {
    pub(super) fn new(url: &PostgresUrl, options: &OpenOptions<'_>) -> Self {
        let mut config = url.config.clone();
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        if let Some(password) = options.password {
            config.password(password.expose_secret());
        }
        config.ssl_mode(url.ssl_mode(options.tls));
        let tls = options
            .tls
            .configure(&options.context.tls, url.verification());
        Self {
            config,
            url: url.clone(),
            role: match options.is_for(StoreUse::Memberships) {
                true => url.role,
                // Skips a server that is no longer the primary.
                false => ServerRole::Primary,
            },
            tls: MakeRustlsConnect::new((*tls).clone()),
            hosts: Hosts::new(options.context.clock.clone()),
            timeout: options.timeout,
            is_pooled: AtomicBool::new(false),
        }
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    pub(super) fn remark(&self) -> Option<Remark> {
        const TEXT: &str = "a connection pooler shares the server's processes among clients; the gate keeps nothing in \
                            a session, so pool_mode = transaction and session both work";
        let is_pooled = self.is_pooled.load(Ordering::Relaxed);
        is_pooled.then(|| Remark {
            part: "pooler",
            text: TEXT.to_owned(),
            remedy: None,
            is_degraded: false,
        })
    }

    /// Connects to the first host and address where `set_up` succeeds, too. The error is that of the last one.
    pub(super) async fn connect<T>(
        &self,
        within: Duration,
        set_up: impl AsyncFn(Session) -> Result<T, Error>,
    ) -> Result<T, Unreachable> {
        let mut targets: Vec<_> = self.url.targets.iter().collect();
        if self.url.is_random {
            fastrand::shuffle(&mut targets);
        }
        let attempt = async |target: &Target, share| match (&target.host, target.address) {
            (Some(Host::Tcp(name)), None) => {
                let open = async |address: SocketAddr, _| {
                    self.open(target, Some(address.ip()), &set_up).await
                };
                self.hosts
                    .first_address(name, target.port, share, open)
                    .await
            }
            (_, address) => self.open(target, address, &set_up).await,
        };
        self.hosts.first(targets, within, attempt).await
    }

    async fn open<T>(
        &self,
        target: &Target,
        address: Option<IpAddr>,
        set_up: &impl AsyncFn(Session) -> Result<T, Error>,
    ) -> Result<T, Unreachable> {
        let mut config = self.config.clone();
        config.port(target.port);
        match (&target.host, target.address) {
            (Some(Host::Tcp(name)), _) => _ = config.host(name),
            // A socket needs no TLS.
            (Some(Host::Unix(folder)), _) => {
                config.host_path(folder).ssl_mode(SslMode::Disable);
            }
            (None, Some(address)) => _ = config.host(address.to_string()),
            (None, None) => {}
        }
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let opened = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let mut driver = JoinSet::new();
            // Errors reach the client.
            driver.spawn_local(connection.map(drop));
            let Server {
                process,
                is_read_only,
            } = Server::inspect(&client, self.timeout).await?;
            let is_usable = match self.role {
                ServerRole::Any => true,
                ServerRole::Primary => !is_read_only,
                ServerRole::Standby => is_read_only,
            };
            if !is_usable {
                return Ok(None);
            }
            let is_pooled = process_id(&client).await != Some(process);
            self.is_pooled.store(is_pooled, Ordering::Relaxed);
            let session = Session {
                client,
                is_pooled,
                _driver: driver,
            };
            set_up(session).await.map(Some)
        };
        let reason = match opened.await {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => match self.role {
                ServerRole::Standby => "the server is not a standby".to_owned(),
                _ => "the server accepts no writes".to_owned(),
            },
            Err(error) => describe_of(&error, &target.to_string()),
        };
        Err(Unreachable::Failed {
            host: match address {
                Some(address) if target.address.is_none() => format!("{target} ({address})"),
                _ => target.to_string(),
            },
            reason,
        })
    }
}

/// What a server says of itself. Another client of a pooler may have changed the session, so the session is not asked.
struct Server {
    process: i32,
    is_read_only: bool,
}

impl Server {
    async fn inspect(client: &Client, timeout: Duration) -> Result<Self, Error> {
        const INSPECT: &str = "\
            select pg_backend_pid(), pg_is_in_recovery() or reset_val = 'on' from pg_settings \
            where name = 'default_transaction_read_only'";

        let query = client.query_typed_one(INSPECT, &[]);
        let row = in_transaction(client, &begin_inspection(timeout), query).await?;
        Ok(Self {
            process: row.get(0),
            is_read_only: row.get(1),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.address) {
            (Some(Host::Tcp(name)), _) => write!(f, "{name}:{}", self.port),
            (Some(Host::Unix(folder)), _) => write!(f, "{}:{}", folder.display(), self.port),
            (None, Some(address)) => write!(f, "{address}:{}", self.port),
            (None, None) => f.write_str("no host"),
        }
    }
}

/// Distinguishes faults of the connection, or of a server that stops or starts, from those of the statement.
pub(super) fn fault(error: &tokio_postgres::Error) -> StoreFault {
    let is_broken = match error.as_db_error() {
        // Class 08 is a fault of the connection, and 57P a shutdown.
        Some(error) => ["08", "57P"]
            .iter()
            .any(|class| error.code().code().starts_with(class)),
        None => {
            error.is_closed()
                || std::error::Error::source(error)
                    .is_some_and(|source| source.is::<std::io::Error>())
        }
    };
    if error.code() == Some(&SqlState::QUERY_CANCELED) {
        StoreFault::Timeout
    } else if is_broken {
        StoreFault::Broken(describe(error))
    } else {
        StoreFault::Refused(describe(error))
    }
}

/// For a statement that writes. A server that has become a replica counts as a broken connection, because the primary
/// is elsewhere.
pub(super) fn write_fault(error: &tokio_postgres::Error) -> StoreFault {
    match error.code() {
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => StoreFault::Broken(describe(error)),
        Some(&SqlState::LOCK_NOT_AVAILABLE) => StoreFault::Locked,
        _ => fault(error),
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    describe_of(error, "the server")
}

/// Includes the message of the server, or of the connection to `host`, which the error itself does not show.
fn describe_of(error: &tokio_postgres::Error, host: &str) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => with_remedy(error.message()),
        (None, Some(source)) => reason(source, host),
        (None, None) => error.to_string(),
    }
}

/// Adds what to do about messages of poolers.
fn with_remedy(message: &str) -> String {
    let remedy = if message.contains("statement pooling mode") {
        "the gate needs pool_mode = transaction or session"
    } else if message.contains("unsupported startup parameter") {
        "remove the parameter from the URL, or add it to ignore_startup_parameters of the pooler"
    } else {
        return message.to_owned();
    };
    format!("{message}; {remedy}")
}
