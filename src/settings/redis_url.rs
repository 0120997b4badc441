//! Where a Redis is.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use secrecy::{ExposeSecret as _, SecretString};

/// A server (`redis://`, `rediss://` by TLS, `redis+unix:///path`), whatever Sentinels say is the primary
/// (`redis+sentinel://user@sentinel-1:26379,sentinel-2:26379/primary/0`), or a cluster
/// (`redis+cluster://node-1:6379,node-2:6379`); `valkey` does as well as `redis`, and `rediss+...` is by TLS.
#[derive(Clone)]
pub struct RedisUrl {
    topology: Topology,
    is_tls: bool,
    nodes: Vec<ConnectionInfo>,
    /// What it is told from others by.
    written: SecretString,
    password: Option<SecretString>,
}

/// What the servers of a URL are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// There is one.
    Server,
    /// They are Sentinels.
    Sentinel {
        /// What the Sentinels call the primary.
        primary: String,
    },
    /// They are nodes of a cluster, some of them.
    Cluster,
}

impl RedisUrl {
    /// Reads a URL; `None` if its scheme is another one.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = text.split_once("://")?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let is_tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return None,
        };
        Some(Self::read(text, is_tls, kind, rest))
    }

    // No message shows the text, which may hold a password.
    fn read(text: &str, is_tls: bool, kind: &str, rest: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is no URL of a Redis; write for example \"redis://gate@cache:6379/0\"";

        let (topology, database) = match kind {
            "" => (Topology::Server, None),
            "unix" => {
                let node = text.replacen("valkey+", "redis+", 1);
                let node = node.into_connection_info().map_err(|_| WRONG)?;
                return Ok(Self::new(text, Topology::Server, is_tls, vec![node]));
            }
            "cluster" => (Topology::Cluster, None),
            "sentinel" => {
                let path = rest.split_once('/').map_or("", |(_, path)| path);
                let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
                if primary.is_empty() {
                    return Err("must say what the Sentinels call the primary: \
                         \"redis+sentinel://sentinel:26379/primary\"");
                }
                let primary = primary.to_owned();
                (Topology::Sentinel { primary }, Some(database))
            }
            _ => return Err(WRONG),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let database = database.unwrap_or(path);
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let default_port = if kind == "sentinel" { ":26379" } else { "" };
        let nodes = hosts.split(',').map(|host| {
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = if has_port { "" } else { default_port };
            // Without TLS, which the gate adds itself.
            let node = format!("redis://{user}{host}{port}/{database}");
            node.into_connection_info().map_err(|_| WRONG)
        });
        let nodes: Vec<_> = nodes.collect::<Result<_, _>>()?;
        if topology == Topology::Server && nodes.len() != 1 {
            return Err("names several servers; a cluster is `redis+cluster://`");
        }
        Ok(Self::new(text, topology, is_tls, nodes))
    }

    fn new(text: &str, topology: Topology, is_tls: bool, nodes: Vec<ConnectionInfo>) -> Self {
        Self {
            topology,
            is_tls,
            nodes,
            written: text.into(),
            password: None,
        }
    }

    pub(super) fn set_password(&mut self, password: &SecretString) {
        for node in &mut self.nodes {
            let settings = node.redis_settings().clone();
            let settings = settings.set_password(password.expose_secret());
            *node = node.clone().set_redis_settings(settings);
        }
        self.password = Some(password.clone());
    }

    /// What the servers are to each other.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where the servers are that are named: one at least.
    pub fn addresses(&self) -> impl Iterator<Item = &ConnectionAddr> {
        self.nodes.iter().map(ConnectionInfo::addr)
    }

    /// How a connection logs in: with which user and password, and to which database.
    #[must_use]
    pub fn login(&self) -> RedisConnectionInfo {
        let node = self.nodes.first();
        node.map(|node| node.redis_settings().clone())
            .unwrap_or_default()
    }

    /// Whether they are reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let secrets = |url: &Self| {
            let password = url.password.as_ref();
            (
                url.written.expose_secret().to_owned(),
                password.map(|password| password.expose_secret().to_owned()),
            )
        };
        secrets(self) == secrets(other)
    }
}

impl Eq for RedisUrl {}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.nodes.iter().map(|node| node.addr().to_string());
        f.debug_struct("RedisUrl")
            .field("topology", &self.topology)
            .field("addresses", &addresses.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
