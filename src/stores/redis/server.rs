//! One server, or one node of a cluster: how it is found, used and probed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use redis::{ErrorKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{
    PREFIX,
    connection::{Dialer, Lane, Node, is_broken},
    slots,
    trial::Trial,
    url::RedisUrl,
};
use crate::stores::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
    health::Health,
    hosts::Hosts,
    kind::Opening,
};

/// Shared by all servers of a store.
pub(super) struct Access {
    pub(super) dialer: Dialer,
    pub(super) login: RedisConnectionInfo,
    pub(super) trial: Trial,
}

impl Access {
    pub(super) fn new(url: &RedisUrl, opening: &Opening<'_>, trial: Trial) -> Self {
        let login = url.login.clone();
        let password = opening.password;
        Self {
            dialer: Dialer {
                hosts: Hosts::new(opening.surroundings.clock.clone()),
                tls: url.is_tls.then(|| opening.surroundings.tls.clone().into()),
            },
            login: match password {
                Some(password) => login.set_password(password.expose_secret()),
                None => login,
            },
            trial,
        }
    }
}

#[derive(Clone)]
pub(super) enum Found {
    At(Node),
    /// The primary of this name, according to the Sentinels.
    BySentinels {
        sentinels: Vec<Node>,
        primary: String,
    },
}

pub(super) struct Server {
    found: Found,
    access: Arc<Access>,
    health: Health,
    /// The prefix of probe keys: in a cluster, one whose slot is on this node.
    probe_prefix: Mutex<String>,
}

/// The result of an operation that reached a server.
pub(super) enum Reply<T> {
    Done(T),
    /// Another node of the cluster has the key. The operation had no effect.
    Elsewhere(Redirect),
}

pub(super) struct Redirect {
    pub(super) node: Node,
    /// Whether the node accepts the commands only after `ASKING`.
    pub(super) asking: bool,
}

impl Server {
    pub(super) fn new(found: Found, access: Arc<Access>, health: Health) -> Arc<Self> {
        Arc::new(Self {
            found,
            access,
            health,
            probe_prefix: Mutex::new(format!("{PREFIX}:probe")),
        })
    }

    /// `None` if the Sentinels must be asked.
    pub(super) fn node(&self) -> Option<&Node> {
        match &self.found {
            Found::At(node) => Some(node),
            Found::BySentinels { .. } => None,
        }
    }

    pub(super) fn set_probe_prefix(&self, prefix: String) {
        let known = self.probe_prefix.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = prefix;
    }

    /// Runs one operation within its time limit.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        only_reads: bool,
        asking: bool,
        within: Duration,
        operation: &impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<Reply<T>, StoreFault> {
        let connect = || {
            let server = self.clone();
            // Connecting fails before the operation does, and names the host.
            let share = within * 9 / 10;
            async move { server.connect(share).await }.boxed_local()
        };
        self.run_on_kept(within, only_reads, connect, async |lane: Lane| {
            let mut lane = if asking { lane.asking() } else { lane };
            let before = lane.sent();
            match operation(&mut lane).await {
                Ok(done) => Ok(Reply::Done(done)),
                Err(error) => match self.redirect(&error) {
                    Some(redirect) => Ok(Reply::Elsewhere(redirect)),
                    None => Err(fault(&error, lane.sent() == before)),
                },
            }
        })
        .await
    }

    fn redirect(&self, error: &RedisError) -> Option<Redirect> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        Some(Redirect {
            node: slots::node(host, port.parse().ok()?, self.node()?)?,
            asking: error.kind() == ErrorKind::Server(ServerErrorKind::Ask),
        })
    }

    async fn connect(&self, within: Duration) -> Result<Lane, Unreachable> {
        let Access { dialer, login, .. } = &*self.access;
        match &self.found {
            Found::At(node) => dialer.connect(node, login, within).await,
            Found::BySentinels { sentinels, primary } => {
                // Half of the time is for the primary.
                let half = within / 2;
                let asked = dialer.hosts.first(sentinels, half, |sentinel, share| {
                    primary_of(dialer, sentinel, primary, share)
                });
                let (sentinel, node) = asked.await?;
                let connecting = async {
                    let lane = dialer.connect(&node, login, half).await?;
                    is_primary(lane, &node).await
                };
                let connected = timeout(half, connecting).await;
                let connected = connected.unwrap_or(Err(Unreachable::Silent(node.to_string())));
                if connected.is_err() {
                    // Another Sentinel may know another primary.
                    dialer.hosts.pass_over(sentinel.to_string());
                }
                connected
            }
        }
    }
}

impl Backend for Server {
    fn health(&self) -> &Health {
        &self.health
    }

    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let lane = self.connect(within).await?;
            let prefix = self.probe_prefix.lock();
            let prefix = prefix.unwrap_or_else(PoisonError::into_inner).clone();
            match self.access.trial.run(&lane, &prefix).await {
                // The node works, but no longer has these keys.
                Err(error) if self.redirect(&error).is_some() => Ok(()),
                Err(error) => Err(fault(&error, false)),
                Ok(()) => Ok(()),
            }
        })
    }
}

async fn primary_of<'a>(
    dialer: &Dialer,
    sentinel: &'a Node,
    primary: &str,
    within: Duration,
) -> Result<(&'a Node, Node), Unreachable> {
    let login = RedisConnectionInfo::default();
    let mut lane = dialer.connect(sentinel, &login, within).await?;
    let mut asked = redis::cmd("SENTINEL");
    asked.arg("get-master-addr-by-name").arg(primary);
    let found = asked.query_async::<Option<(String, u16)>>(&mut lane).await;
    match found.map_err(|error| Unreachable::failed(sentinel, error))? {
        Some((host, port)) => Ok((sentinel, Node::Tcp(host, port))),
        None => Err(Unreachable::failed(
            sentinel,
            format!("no primary is called {primary:?}"),
        )),
    }
}

/// Checks that a server is still a primary, as far as the user's permissions allow.
async fn is_primary(mut lane: Lane, node: &Node) -> Result<Lane, Unreachable> {
    let role = redis::cmd("ROLE")
        .query_async::<redis::Value>(&mut lane)
        .await;
    let role = match role {
        Ok(redis::Value::Array(role)) => role.into_iter().next(),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => None,
        Err(error) => return Err(Unreachable::failed(node, error)),
    };
    let role = role.and_then(|role| redis::from_redis_value::<String>(role).ok());
    match role.as_deref() {
        None | Some("master") => Ok(lane),
        Some(role) => Err(Unreachable::failed(node, format!("its role is {role:?}"))),
    }
}

/// Classifies an error of an operation. A server that has become a replica counts as a broken connection, because the
/// primary is elsewhere.
fn fault(error: &RedisError, nothing_was_sent: bool) -> StoreFault {
    // Servers before version 7 name it inside the error of a script.
    let is_replica = error.to_string().contains("READONLY");
    if is_broken(error) || is_replica {
        if nothing_was_sent && !is_replica {
            StoreFault::Unsent
        } else {
            StoreFault::Broken(error.to_string())
        }
    } else {
        StoreFault::Refused(error.to_string())
    }
}
