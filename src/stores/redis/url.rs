//! Parses Redis URLs.

use redis::{ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use super::connection::Node;

/// A server (`redis://`, `rediss://` with TLS, `redis+unix:///path`), the primary that Sentinels name
/// (`redis+sentinel://user@sentinel-1:26379,sentinel-2:26379/primary/0`), or a cluster
/// (`redis+cluster://node-1:6379,node-2:6379`). `valkey` works like `redis`, and `rediss+...` uses TLS.
pub(super) struct RedisUrl {
    pub(super) topology: Topology,
    /// The user and the database.
    pub(super) login: RedisConnectionInfo,
    pub(super) is_tls: bool,
}

pub(super) enum Topology {
    Single(Endpoint),
    /// Some nodes of a cluster.
    Cluster(Vec<Node>),
}

#[derive(Clone)]
pub(super) enum Endpoint {
    Node(Node),
    /// The primary of this name, according to the Sentinels.
    Sentinels {
        sentinels: Vec<Node>,
        primary: String,
    },
}

const WRONG: &str = "is not a Redis URL; write for example \"redis://gate@cache:6379/0\"";

impl RedisUrl {
    /// `None` if the scheme is another one. No message shows the text, which may contain a password.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = text.split_once("://")?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let is_tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return None,
        };
        let parsed = match kind {
            "" => nodes(rest, "").and_then(|(login, nodes)| match <[Node; 1]>::try_from(nodes) {
                Ok([node]) => Ok((login, Topology::Single(Endpoint::Node(node)))),
                Err(_) => Err("names several servers; write `redis+cluster://` for a cluster"),
            }),
            "unix" if !is_tls => connection(&format!("redis+unix://{rest}")).map(|node| {
                let endpoint = Endpoint::Node(node.addr().clone());
                (node.redis_settings().clone(), Topology::Single(endpoint))
            }),
            "cluster" => nodes(rest, "").map(|(login, nodes)| (login, Topology::Cluster(nodes))),
            "sentinel" => sentinels(rest),
            _ => Err(WRONG),
        };
        Some(parsed.map(|(login, topology)| Self {
            topology,
            login,
            is_tls,
        }))
    }
}

/// `user@sentinel,sentinel/primary/database`
fn sentinels(rest: &str) -> Result<(RedisConnectionInfo, Topology), &'static str> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
    if primary.is_empty() {
        return Err("needs the name of the primary; write for example \
                    \"redis+sentinel://sentinel:26379/primary\"");
    }
    let (login, sentinels) = nodes(&format!("{authority}/{database}"), ":26379")?;
    let primary = primary.to_owned();
    Ok((
        login,
        Topology::Single(Endpoint::Sentinels { sentinels, primary }),
    ))
}

/// `user@host,host/database`
fn nodes(rest: &str, default_port: &str) -> Result<(RedisConnectionInfo, Vec<Node>), &'static str> {
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut login = RedisConnectionInfo::default();
    let nodes = hosts.split(',').map(|host| {
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if has_port { "" } else { default_port };
        // The gate adds TLS itself.
        let node = connection(&format!("redis://{user}{host}{port}/{database}"))?;
        login = node.redis_settings().clone();
        Ok(node.addr().clone())
    });
    let nodes = nodes.collect::<Result<_, &'static str>>()?;
    Ok((login, nodes))
}

fn connection(url: &str) -> Result<ConnectionInfo, &'static str> {
    url.into_connection_info().map_err(|_| WRONG)
}
