//! Parses PostgreSQL URLs, connects to the first host that works, and classifies errors of the server.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::FutureExt as _;
use policies::StoreUse;
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, LoadBalanceHosts, TargetSessionAttrs},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    outbound::reason,
    stores::{
        fault::{StoreFault, Unreachable},
        hosts::Hosts,
        kind::OpenOptions,
    },
};

pub(super) struct PostgresUrl {
    pub(super) hosts: Config,
    /// Without the hosts, which cannot be removed from a [`Config`].
    pub(super) config: Config,
}

impl PostgresUrl {
    /// `None` if the scheme is another one. No message shows the text, which may contain a password.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
        is_postgres.then(|| {
            let config = |text: &str| {
                let config = text.parse();
                config.map_err(
                    |_| "is not a PostgreSQL URL; write for example \"postgres://gate@db/app\"",
                )
            };
            Ok(Self {
                hosts: config(text)?,
                config: config(&without_hosts(text))?,
            })
        })
    }
}

/// The URL without its hosts, split as tokio-postgres does.
fn without_hosts(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (user, rest) = rest.split_at(rest.find('@').map_or(0, |at| at + 1));
    let rest = rest.find(['/', '?']).map_or("", |end| rest.split_at(end).1);
    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let names_host = |parameter: &&str| {
        let name = parameter.split('=').next();
        matches!(name, Some("host" | "hostaddr" | "port"))
    };
    let parameters = parameters
        .split('&')
        .filter(|it| !it.is_empty() && !names_host(it));
    let parameters = parameters.collect::<Vec<_>>().join("&");
    format!("{scheme}://{user}{database}?{parameters}")
}

const PORT: u16 = 5432;

/// What the server shows of a connection.
const APPLICATION_NAME: &str = concat!("imgwire-gate/", env!("CARGO_PKG_VERSION"));

pub(super) struct Connector {
    /// Without hosts.
    config: Config,
    targets: Vec<Target>,
    is_random: bool,
    tls: MakeRustlsConnect,
    hosts: Hosts,
}

struct Target {
    /// Its certificate must have this name.
    host: Option<Host>,
    address: Option<IpAddr>,
    port: u16,
}

/// Closed when dropped.
pub(super) struct Session {
    pub(super) client: Client,
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
        if options.is_for(StoreUse::Quotas) {
            // Skips a server that is no longer the primary.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Self {
            config,
            targets: targets(&url.hosts),
            is_random: url.hosts.get_load_balance_hosts() == LoadBalanceHosts::Random,
            tls: MakeRustlsConnect::new((*options.context.tls).clone()),
            hosts: Hosts::new(options.context.clock.clone()),
        }
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Connects to the first host and address where `set_up` succeeds, too. The error is that of the last one.
    pub(super) async fn connect<T>(
        &self,
        within: Duration,
        set_up: impl AsyncFn(Session) -> Result<T, Error>,
    ) -> Result<T, Unreachable> {
        let mut targets: Vec<_> = self.targets.iter().collect();
        if self.is_random {
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
        match &target.host {
            Some(Host::Tcp(name)) => _ = config.host(name),
            Some(Host::Unix(folder)) => _ = config.host_path(folder),
            None => {}
        }
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let opened = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let mut driver = JoinSet::new();
            // Errors reach the client.
            driver.spawn_local(connection.map(drop));
            set_up(Session {
                client,
                _driver: driver,
            })
            .await
        };
        opened.await.map_err(|error| Unreachable::Failed {
            host: match address {
                Some(address) if target.address.is_none() => format!("{target} ({address})"),
                _ => target.to_string(),
            },
            reason: describe(&error),
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

/// The hosts of a URL. A host with an address needs no DNS.
fn targets(config: &Config) -> Vec<Target> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let count = hosts.len().max(addresses.len());
    let target = |index| Target {
        host: hosts.get(index).cloned(),
        address: addresses.get(index).copied(),
        port: *ports.get(index).or(ports.first()).unwrap_or(&PORT),
    };
    (0..count).map(target).collect()
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

/// Includes the server's message, which the error itself does not show.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => error.message().to_owned(),
        (None, Some(source)) => format!("{error}: {}", reason(source, "the server")),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::{Host, SslMode};

    use super::*;

    #[test]
    fn the_config_has_everything_but_the_hosts() {
        for (url, count) in [
            ("postgres://gate:a%40b@one:1,two:2/app?sslmode=require", 2),
            (
                "postgresql://gate:a%40b@/app?host=one&hostaddr=127.0.0.1&port=1&sslmode=require",
                1,
            ),
            (
                "postgres://gate:a%40b@%2Frun%2Fpg:5433/app?sslmode=require&target_session_attrs=any",
                1,
            ),
        ] {
            let url = PostgresUrl::parse(url).expect("its scheme").expect("a URL");
            assert_eq!(url.hosts.get_hosts().len(), count);
            let hosts: &[Host] = &[];
            assert_eq!(url.config.get_hosts(), hosts);
            assert!(url.config.get_hostaddrs().is_empty() && url.config.get_ports().is_empty());
            assert_eq!(url.config.get_user(), Some("gate"));
            assert_eq!(url.config.get_password(), Some(&b"a@b"[..]));
            assert_eq!(url.config.get_dbname(), Some("app"));
            assert_eq!(url.config.get_ssl_mode(), SslMode::Require);
        }
    }
}
