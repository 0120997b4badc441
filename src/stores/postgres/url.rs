//! Parses PostgreSQL URLs as libpq reads them, and as providers and other tools write them.
//!
//! No message shows a value of the URL, because a password with special characters may be anywhere in it.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;
use policies::SecretSource;
use tokio_postgres::{
    Config,
    config::{ChannelBinding, Host, SslMode, SslNegotiation},
};

use super::parameters::{NOT_ENCODED, Parameter, parameter};
use crate::{
    outbound::{TlsMaterial, Verification},
    stores::tls::TlsSettings,
};

const PORT: u16 = 5432;

const WRONG: &str = "is not a PostgreSQL URL; write for example \"postgres://gate@db/app\"";

#[derive(Clone)]
pub(super) struct PostgresUrl {
    /// Without hosts.
    pub(super) config: Config,
    pub(super) targets: Vec<Target>,
    /// Whether to try the hosts in random order.
    pub(super) is_random: bool,
    pub(super) role: ServerRole,
    /// Where the tables of membership queries are. `None`: as the database and the role say.
    pub(super) search_path: Option<String>,
    /// `None` if the URL does not say: TLS if the server offers it.
    mode: Option<TlsMode>,
    tls: TlsSettings,
}

#[derive(Clone)]
pub(super) struct Target {
    /// Its certificate must have this name.
    pub(super) host: Option<Host>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// Which servers of several are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ServerRole {
    #[default]
    Any,
    /// It accepts writes.
    Primary,
    Standby,
}

/// `sslmode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsMode {
    Disable,
    /// TLS if the server offers it, without verification. libpq's `allow` differs only in what it tries first.
    Prefer,
    /// TLS without verification: `no-verify` of node-postgres.
    NoVerify,
    Require,
    VerifyCa,
    VerifyFull,
}

impl PostgresUrl {
    /// `None` if the scheme is another one.
    pub(super) fn parse(text: &str) -> Option<Result<Self, String>> {
        let text = text.strip_prefix("jdbc:").unwrap_or(text);
        let (scheme, rest) = text.split_once("://")?;
        // SQLAlchemy names its driver: `postgresql+asyncpg`.
        let scheme = scheme.split('+').next().unwrap_or_default();
        let is_postgres = matches!(scheme, "postgres" | "postgresql");
        is_postgres.then(|| Self::parse_rest(rest))
    }

    fn parse_rest(rest: &str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut parts = Parts::default();
        let hosts = hosts.split(',').filter(|host| !host.is_empty());
        for host in hosts {
            let (host, port) = split_port(host).ok_or(WRONG)?;
            parts.hosts.push(decode(host)?);
            parts.ports.push(port.to_owned());
        }
        parts.user = some(decode(user)?);
        parts.password = some(decode(password)?);
        parts.database = some(decode(database)?);
        if query.contains('@') {
            // The authority ended at a `?` of the password. Nothing after it may be shown.
            return Err(NOT_ENCODED.to_owned());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.set(&decode(name)?, decode(value)?)?;
        }
        parts.url()
    }

    pub(super) fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The certificates that the URL names.
    pub(super) fn tls(&self) -> Result<TlsSettings, String> {
        match self.mode {
            Some(TlsMode::Disable | TlsMode::Prefer) => Err(
                "needs sslmode=require, sslmode=verify-ca or sslmode=verify-full in the URL"
                    .to_owned(),
            ),
            _ => Ok(self.tls.clone()),
        }
    }

    /// Whether no authority of the system may be trusted.
    pub(super) fn needs_ca(&self) -> bool {
        self.mode == Some(TlsMode::VerifyCa)
    }

    pub(super) fn ssl_mode(&self, material: &TlsMaterial) -> SslMode {
        match self.mode {
            Some(TlsMode::Disable) => SslMode::Disable,
            Some(TlsMode::Prefer) => SslMode::Prefer,
            None if material.is_empty() => SslMode::Prefer,
            _ => SslMode::Require,
        }
    }

    pub(super) fn verification(&self) -> Verification {
        match self.mode {
            Some(TlsMode::Prefer | TlsMode::NoVerify) => Verification::Off,
            Some(TlsMode::VerifyCa) => Verification::Authority,
            _ => Verification::Full,
        }
    }
}

/// What a URL says, before it is checked.
#[derive(Default)]
struct Parts {
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
    role: ServerRole,
    is_random: bool,
    search_path: Option<String>,
    mode: Option<TlsMode>,
    /// `sslaccept` of Prisma.
    accepts_invalid: Option<bool>,
    trusts_system: bool,
    tls: TlsSettings,
    config: Config,
}

impl Parts {
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let list = || value.split(',').map(str::to_owned).collect();
        let config = &mut self.config;
        match parameter(name)? {
            Parameter::Host => self.hosts = list(),
            Parameter::HostAddress => self.addresses = list(),
            Parameter::Port => self.ports = list(),
            Parameter::User => self.user = some(value),
            Parameter::Password => self.password = some(value),
            Parameter::Database => self.database = some(value),
            Parameter::TlsMode => self.mode = Some(tls_mode(name, &value)?),
            Parameter::TlsAccept => self.accepts_invalid = Some(value == "accept_invalid_certs"),
            Parameter::RootCertificate if value == "system" => self.trusts_system = true,
            Parameter::RootCertificate => self.tls.ca = some(value).map(PathBuf::from),
            Parameter::Certificate => self.tls.certificate = some(value).map(PathBuf::from),
            Parameter::Key => {
                self.tls.key = some(value).map(|path| SecretSource::File(path.into()))
            }
            Parameter::TlsNegotiation => {
                _ = config.ssl_negotiation(match value.as_str() {
                    "direct" => SslNegotiation::Direct,
                    "postgres" => SslNegotiation::Postgres,
                    _ => return Err(expected(name, "`postgres` or `direct`")),
                })
            }
            Parameter::ChannelBinding => {
                _ = config.channel_binding(match value.as_str() {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(expected(name, "`disable`, `prefer` or `require`")),
                })
            }
            Parameter::TargetSession => {
                self.role = match value.as_str() {
                    "any" => ServerRole::Any,
                    "read-write" | "primary" => ServerRole::Primary,
                    "read-only" | "standby" => ServerRole::Standby,
                    _ => {
                        return Err(expected(
                            name,
                            "`any`, `primary`, `read-write`, `standby` or `read-only`",
                        ));
                    }
                }
            }
            Parameter::LoadBalance => {
                self.is_random = match value.as_str() {
                    "random" => true,
                    "disable" => false,
                    _ => return Err(expected(name, "`disable` or `random`")),
                }
            }
            Parameter::ApplicationName => _ = config.application_name(&value),
            Parameter::Options => _ = config.options(&value),
            Parameter::SearchPath => self.search_path = some(value),
            Parameter::Keepalives => _ = config.keepalives(value != "0"),
            Parameter::KeepalivesIdle => _ = config.keepalives_idle(seconds(name, &value)?),
            Parameter::KeepalivesInterval => _ = config.keepalives_interval(seconds(name, &value)?),
            Parameter::KeepalivesCount => _ = config.keepalives_retries(number(name, &value)?),
            Parameter::TcpUserTimeout => {
                let millis = Duration::from_millis(number(name, &value)?);
                config.tcp_user_timeout(millis);
            }
            Parameter::Only(allowed) => {
                if !allowed
                    .iter()
                    .any(|allowed| value.eq_ignore_ascii_case(allowed))
                {
                    let allowed: Vec<_> = allowed.iter().map(|it| format!("`{it}`")).collect();
                    return Err(expected(name, &allowed.join(" or ")));
                }
            }
            Parameter::Ignored => {}
        }
        Ok(())
    }

    fn url(mut self) -> Result<PostgresUrl, String> {
        let targets = self.targets()?;
        let mode = self.resolved_mode()?;
        let mut config = self.config;
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        let tls = std::mem::take(&mut self.tls);
        let names_files = tls.ca.is_some() || tls.certificate.is_some() || tls.key.is_some();
        if names_files && matches!(mode, Some(TlsMode::Disable | TlsMode::Prefer)) {
            return Err(
                "names certificates, but its `sslmode` does not require TLS; write sslmode=verify-full"
                    .to_owned(),
            );
        }
        Ok(PostgresUrl {
            config,
            targets,
            is_random: self.is_random,
            role: self.role,
            search_path: self.search_path,
            mode,
            tls,
        })
    }

    /// The hosts of the URL. A host with an address needs no DNS.
    fn targets(&self) -> Result<Vec<Target>, String> {
        let count = self.hosts.len().max(self.addresses.len());
        if count == 0 {
            return Err(
                "names no host; write for example \"postgres://gate@db/app\", or the folder \
                        of a socket: \"postgres://gate@/app?host=/var/run/postgresql\""
                    .to_owned(),
            );
        }
        let fits = |len: usize| len == 0 || len == count;
        if !fits(self.hosts.len()) || !fits(self.addresses.len()) {
            return Err("must have as many addresses (`hostaddr`) as hosts".to_owned());
        }
        if !fits(self.ports.len()) && self.ports.len() != 1 {
            return Err("must have one port, or as many ports as hosts".to_owned());
        }
        let target = |index: usize| {
            let host = self
                .hosts
                .get(index)
                .filter(|host: &&String| !host.is_empty());
            let address = self.addresses.get(index).filter(|it| !it.is_empty());
            let port = self.ports.get(index).or(self.ports.first());
            let port = port.filter(|port| !port.is_empty());
            if host.is_none() && address.is_none() {
                return Err(WRONG);
            }
            Ok(Target {
                host: host.map(|host| match host.starts_with('/') {
                    true => Host::Unix(host.into()),
                    false => Host::Tcp(host.clone()),
                }),
                address: address
                    .map(|it| it.parse().map_err(|_| WRONG))
                    .transpose()?,
                port: port.map_or(Ok(PORT), |port| port.parse().map_err(|_| WRONG))?,
            })
        };
        let targets: Result<_, &'static str> = (0..count).map(target).collect();
        Ok(targets?)
    }

    fn resolved_mode(&self) -> Result<Option<TlsMode>, String> {
        let mode = match (self.mode, self.accepts_invalid) {
            (Some(TlsMode::VerifyCa | TlsMode::VerifyFull), Some(true)) => {
                return Err("has `sslaccept` and `sslmode`, which contradict each other".to_owned());
            }
            (Some(TlsMode::Require), Some(true)) => Some(TlsMode::NoVerify),
            (None, Some(true)) => Some(TlsMode::Prefer),
            (Some(TlsMode::Prefer), Some(false)) => None,
            (mode, _) => mode,
        };
        match mode {
            mode if !self.trusts_system => Ok(mode),
            None => Ok(Some(TlsMode::VerifyFull)),
            Some(TlsMode::Require | TlsMode::VerifyFull) => Ok(mode),
            Some(_) => Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned()),
        }
    }
}

fn tls_mode(name: &str, value: &str) -> Result<TlsMode, String> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "disable" | "false" | "0" | "off" | "no" => TlsMode::Disable,
        "allow" | "prefer" => TlsMode::Prefer,
        "no-verify" => TlsMode::NoVerify,
        "require" | "true" | "1" | "on" | "yes" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        _ => {
            let modes = "`disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full` or `no-verify`";
            return Err(expected(name, modes));
        }
    })
}

fn expected(name: &str, values: &str) -> String {
    format!("has the parameter `{name}`, whose value must be {values}")
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| expected(name, "a whole number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    number(name, value).map(Duration::from_secs)
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| WRONG)?.into_owned())
}

/// Splits `host:port`. An IPv6 address is in brackets.
fn split_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, "")),
            rest => Some((host, rest.strip_prefix(':')?)),
        };
    }
    Some(text.split_once(':').unwrap_or((text, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(url).expect("its scheme")
    }

    fn shown(url: &PostgresUrl) -> Vec<(String, Option<IpAddr>, u16)> {
        let targets = url.targets.iter().map(|target| {
            let host = match &target.host {
                None => String::new(),
                Some(Host::Tcp(name)) => name.clone(),
                Some(Host::Unix(folder)) => folder.display().to_string(),
            };
            (host, target.address, target.port)
        });
        targets.collect()
    }

    #[test]
    fn the_urls_of_providers_and_tools_are_read() {
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        for (url, hosts, user) in [
            (
                "postgres://gate:a%40b@one:1,two:2/app?sslmode=require",
                vec![("one", None, 1), ("two", None, 2)],
                "gate",
            ),
            (
                "postgresql://gate:a%40b@/app?host=one&hostaddr=127.0.0.1&port=1&sslmode=require",
                vec![("one", local, 1)],
                "gate",
            ),
            (
                "postgres://gate:a%40b@%2Frun%2Fpg:5433/app?sslmode=require",
                vec![("/run/pg", None, 5433)],
                "gate",
            ),
            (
                "postgres://gate:a@b@[::1]:6432,[fe80::1]/app?sslmode=require",
                vec![("::1", None, 6432), ("fe80::1", None, 5432)],
                "gate",
            ),
            // Supabase, by its pooler
            (
                "postgres://postgres.abcdef:a%40b@aws-0-eu-central-1.pooler.supabase.com:6543/app?sslmode=require&supa=base-pooler.x",
                vec![("aws-0-eu-central-1.pooler.supabase.com", None, 6543)],
                "postgres.abcdef",
            ),
            // Neon
            (
                "postgresql://gate:a%40b@ep-cool-1-pooler.eu.aws.neon.tech/app?sslmode=require&channel_binding=require&options=endpoint%3Dep-cool-1",
                vec![("ep-cool-1-pooler.eu.aws.neon.tech", None, 5432)],
                "gate",
            ),
            // Azure
            (
                "postgres://gate%40server:a%40b@server.postgres.database.azure.com:5432/app?sslmode=require",
                vec![("server.postgres.database.azure.com", None, 5432)],
                "gate@server",
            ),
            // Cloud SQL, as Prisma writes it
            (
                "postgresql://gate:a%40b@localhost/app?host=/cloudsql/project:region:instance&sslmode=require",
                vec![("/cloudsql/project:region:instance", None, 5432)],
                "gate",
            ),
            // Prisma
            (
                "postgresql://gate:a%40b@db:6432/app?schema=shop&pgbouncer=true&connection_limit=1&pool_timeout=20&connect_timeout=10&statement_cache_size=0&sslmode=require&sslaccept=strict",
                vec![("db", None, 6432)],
                "gate",
            ),
            // SQLAlchemy, JDBC
            (
                "postgresql+asyncpg://gate:a%40b@db/app?ssl=require",
                vec![("db", None, 5432)],
                "gate",
            ),
            (
                "jdbc:postgresql://db/app?user=gate&password=a%40b&ssl=true&currentSchema=shop&prepareThreshold=0",
                vec![("db", None, 5432)],
                "gate",
            ),
        ] {
            let read = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let hosts: Vec<_> = hosts
                .into_iter()
                .map(|(host, address, port)| (host.to_owned(), address, port))
                .collect();
            assert_eq!(shown(&read), hosts, "{url}");
            assert_eq!(read.config.get_user(), Some(user), "{url}");
            assert_eq!(read.config.get_password(), Some(&b"a@b"[..]), "{url}");
            assert_eq!(read.config.get_dbname(), Some("app"), "{url}");
            assert_eq!(read.ssl_mode(&TlsMaterial::default()), SslMode::Require);
            assert!(read.config.get_hosts().is_empty());
        }
    }

    #[test]
    fn the_modes_of_tls_are_those_of_libpq_except_that_require_verifies() {
        let (prefer, require) = (SslMode::Prefer, SslMode::Require);
        for (parameters, mode, verification) in [
            ("", prefer, Verification::Full),
            ("sslmode=disable", SslMode::Disable, Verification::Full),
            ("sslmode=allow", prefer, Verification::Off),
            ("sslmode=prefer", prefer, Verification::Off),
            ("sslmode=require", require, Verification::Full),
            (
                "sslmode=verify-ca&sslrootcert=ca.pem",
                require,
                Verification::Authority,
            ),
            ("sslmode=verify-full", require, Verification::Full),
            ("sslrootcert=system", require, Verification::Full),
            ("sslmode=no-verify", require, Verification::Off),
            (
                "sslmode=require&sslaccept=accept_invalid_certs",
                require,
                Verification::Off,
            ),
            (
                "sslmode=prefer&sslaccept=strict",
                prefer,
                Verification::Full,
            ),
            ("ssl=true", require, Verification::Full),
            ("ssl=0", SslMode::Disable, Verification::Full),
        ] {
            let url = parse(&format!("postgres://gate@db/app?{parameters}")).expect(parameters);
            let none = TlsMaterial::default();
            assert_eq!(
                (url.ssl_mode(&none), url.verification()),
                (mode, verification),
                "{parameters}"
            );
        }
    }

    #[test]
    fn what_the_gate_cannot_honour_is_named() {
        for (rest, expected) in [
            ("db/app?sslcrl=crl.pem", "`sslcrl`"),
            ("db/app?passfile=p", "`passfile`"),
            ("db/app?sslmode=verify-all", "`sslmode`"),
            (
                "db/app?sslmode=verify-full&sslaccept=accept_invalid_certs",
                "contradict",
            ),
            (
                "db/app?sslmode=prefer&sslrootcert=ca.pem",
                "does not require TLS",
            ),
            ("db/app?sslmode=verify-ca&sslrootcert=system", "verify-full"),
            ("db/app?client_encoding=latin1", "`client_encoding`"),
            (
                "db/app?target_session_attrs=prefer-standby",
                "`target_session_attrs`",
            ),
            (
                "db/app?ssl_min_protocol_version=TLSv1.3",
                "`ssl_min_protocol_version`",
            ),
            ("db/app?colour=red", "`colour`"),
            ("/app", "no host"),
            ("db:port/app", "not a PostgreSQL URL"),
            ("one:1,two:2,three/app?port=1,2", "as many ports"),
        ] {
            let Err(error) = parse(&format!("postgres://gate@{rest}")) else {
                panic!("{rest} is accepted")
            };
            assert!(error.contains(expected), "{rest}: {error}");
        }
        for url in [
            "postgres://gate:s3?cret@db/app",
            "postgres://gate:s3/cret@db/app",
            "postgres://gate:s3#cret@db/app",
        ] {
            let error = parse(url).err();
            assert!(error.is_none_or(|error| !error.contains("cret")), "{url}");
        }
    }
}
