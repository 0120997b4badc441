//! Parses PostgreSQL URLs as libpq reads them, and as providers and other tools write them.
//!
//! No message shows a value of the URL, because a password with special characters may be anywhere in it.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::{
    outbound::{TlsMaterial, Verification},
    stores::tls::TlsSettings,
};

pub(super) const NOT_ENCODED: &str = "has special characters that are not percent-encoded; write `?`, `&`, `/`, `@` and \
                                      `#` in the user name and the password as %3F, %26, %2F, %40 and %23";

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
pub(super) enum TlsMode {
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
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<String>,
    pub(super) hosts: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) role: ServerRole,
    pub(super) is_random: bool,
    pub(super) search_path: Option<String>,
    pub(super) mode: Option<TlsMode>,
    /// `sslaccept` of Prisma.
    pub(super) accepts_invalid: Option<bool>,
    pub(super) trusts_system: bool,
    pub(super) tls: TlsSettings,
    pub(super) config: Config,
}

impl Parts {
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

pub(super) fn some(text: String) -> Option<String> {
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
mod tests;
