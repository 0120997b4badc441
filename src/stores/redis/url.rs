//! Where a Redis is.

use redis::{ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use super::connection::Node;

/// A server (`redis://`, `rediss://` by TLS, `redis+unix:///path`), whatever Sentinels say is the primary
/// (`redis+sentinel://user@sentinel-1:26379,sentinel-2:26379/primary/0`), or a cluster
/// (`redis+cluster://node-1:6379,node-2:6379`); `valkey` does as well as `redis`, and `rediss+...` is by TLS.
pub(super) struct RedisUrl {
    pub(super) topology: Topology,
    /// The servers that are named: one at least.
    pub(super) nodes: Vec<Node>,
    /// How a connection logs in: as which user, and to which database.
    pub(super) login: RedisConnectionInfo,
    pub(super) is_tls: bool,
}

/// What the servers of a URL are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// There is one.
    Server(Node),
    /// They are Sentinels, which call the primary by this name.
    Sentinel { primary: String },
    /// They are nodes of a cluster, some of them.
    Cluster,
}

const WRONG: &str = "is not a Redis URL; write for example \"redis://gate@cache:6379/0\"";

impl RedisUrl {
    /// Reads a URL; `None` if its scheme is another one. No message shows the text, which may hold a password.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = text.split_once("://")?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let is_tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return None,
        };
        let read = match kind {
            "" => Self::servers(rest, "", None),
            "unix" if !is_tls => Self::new(&[format!("redis+unix://{rest}")]),
            "cluster" => Self::servers(rest, "", Some(Topology::Cluster)),
            "sentinel" => Self::sentinels(rest),
            _ => Err(WRONG),
        };
        Some(read.map(|url| Self { is_tls, ..url }))
    }

    /// `user@sentinel,sentinel/primary/database`
    fn sentinels(rest: &str) -> Result<Self, &'static str> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
        if primary.is_empty() {
            return Err("must say what the Sentinels call the primary: \
                        \"redis+sentinel://sentinel:26379/primary\"");
        }
        let topology = Topology::Sentinel {
            primary: primary.to_owned(),
        };
        let rest = format!("{authority}/{database}");
        Self::servers(&rest, ":26379", Some(topology))
    }

    /// `user@host,host/database`; one host if the topology says nothing else.
    fn servers(
        rest: &str,
        default_port: &str,
        topology: Option<Topology>,
    ) -> Result<Self, &'static str> {
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let nodes: Vec<_> = hosts
            .split(',')
            .map(|host| {
                let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
                let port = if has_port { "" } else { default_port };
                // Without TLS, which the gate adds itself.
                format!("redis://{user}{host}{port}/{database}")
            })
            .collect();
        let url = Self::new(&nodes)?;
        match topology {
            Some(topology) => Ok(Self { topology, ..url }),
            None if url.nodes.len() == 1 => Ok(url),
            None => Err("names several servers; a cluster is `redis+cluster://`"),
        }
    }

    /// One URL for each node.
    fn new(nodes: &[String]) -> Result<Self, &'static str> {
        let nodes = nodes
            .iter()
            .map(|node| node.as_str().into_connection_info());
        let nodes: Vec<ConnectionInfo> = nodes.collect::<Result<_, _>>().map_err(|_| WRONG)?;
        let first = nodes.first().ok_or(WRONG)?;
        Ok(Self {
            topology: Topology::Server(first.addr().clone()),
            login: first.redis_settings().clone(),
            nodes: nodes.iter().map(|node| node.addr().clone()).collect(),
            is_tls: false,
        })
    }
}
