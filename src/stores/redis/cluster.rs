//! A cluster: each key belongs to one node, and each node is up or down by itself.

use std::{sync::Arc, time::Duration};

use actix_web::rt;
use arc_swap::ArcSwap;
use futures_util::future::{FutureExt as _, LocalBoxFuture, select_ok};
use policies::Clock;
use redis::RedisResult;
use tokio::{sync::Mutex, time::timeout};

use super::{
    connection::{Lane, Node},
    server::{Access, Found, Reply, Server},
    slots::{self, Range, Slots, slot_of},
};
use crate::stores::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
    health::Health,
    kind::Opening,
};

/// How often one operation follows a redirect.
const REDIRECTS: usize = 4;

/// How many nodes to ask for the slots, besides those of the URL.
const ASKED_NODES: usize = 3;

pub(super) struct Cluster {
    seeds: Vec<Node>,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    health: Health,
    slots: ArcSwap<Slots>,
    /// Held while the slots are being learned.
    learning: Mutex<()>,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Node>, access: Arc<Access>, opening: &Opening<'_>) -> Arc<Self> {
        Arc::new(Self {
            seeds,
            access,
            health: opening.health(),
            clock: opening.surroundings.clock.clone(),
            slots: ArcSwap::default(),
            learning: Mutex::default(),
        })
    }

    /// Runs one operation on a key, or one that any node can do, within its time limit.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        key: Option<&str>,
        only_reads: bool,
        operation: &impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        if !self.health.is_up() {
            return Err(StoreFault::Down);
        }
        let done = self.ask_the_node_of(key, only_reads, operation).await;
        match &done {
            Ok(_) => self.health.works(),
            // The slots of a node that is down may have moved, or all nodes may be down.
            Err(_) => self.is_suspect(),
        }
        done
    }

    async fn ask_the_node_of<T>(
        self: &Arc<Self>,
        key: Option<&str>,
        only_reads: bool,
        operation: &impl AsyncFn(&mut Lane) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let ends = self.clock.elapsed() + self.health.timeout();
        let left = || ends.saturating_sub(self.clock.elapsed());
        let mut slots = self.slots.load_full();
        if slots.is_empty() {
            slots = self.learn(&slots, left()).await?;
        }
        let server = match key {
            Some(key) => slots.of(slot_of(key)).cloned(),
            None => slots.any(),
        };
        let mut server = server.ok_or(Unreachable::NoHost)?;
        let mut asking = false;
        for _ in 0..REDIRECTS {
            let reply = server.ask(only_reads, asking, left(), operation).await?;
            let redirect = match reply {
                Reply::Done(done) => return Ok(done),
                Reply::Elsewhere(redirect) => redirect,
            };
            asking = redirect.asking;
            if !asking {
                slots = self.learn(&slots, left()).await?;
            }
            let known = slots.at(&redirect.node);
            server = known.unwrap_or_else(|| self.server(&redirect.node));
        }
        Err(StoreFault::Refused("the key moves all the time".to_owned()))
    }

    /// Learns which node has which slots, unless the slots were updated since `known`.
    async fn learn(&self, known: &Arc<Slots>, within: Duration) -> Result<Arc<Slots>, Unreachable> {
        let ends = self.clock.elapsed() + within;
        let learning = timeout(within, self.learning.lock()).await;
        let _learning = learning.map_err(|_| Unreachable::Silent("the cluster".to_owned()))?;
        let current = self.slots.load_full();
        if !Arc::ptr_eq(&current, known) {
            return Ok(current);
        }
        let ready = current.ready().filter_map(|server| server.node().cloned());
        let mut nodes: Vec<_> = ready.take(ASKED_NODES).collect();
        let seeds = self.seeds.iter().filter(|seed| !nodes.contains(seed));
        let seeds: Vec<_> = seeds.cloned().collect();
        nodes.extend(seeds);
        let within = ends.saturating_sub(self.clock.elapsed());
        let hosts = &self.access.dialer.hosts;
        let ranges = hosts.first(&nodes, within, |node, share| self.ranges(node, share));
        let slots = Slots::new(ranges.await?, |node| {
            current.at(node).unwrap_or_else(|| self.server(node))
        });
        let slots = Arc::new(slots);
        self.slots.store(slots.clone());
        Ok(slots)
    }

    async fn ranges(&self, node: &Node, within: Duration) -> Result<Vec<Range>, Unreachable> {
        let Access { dialer, login, .. } = &*self.access;
        let mut lane = dialer.connect(node, login, within).await?;
        let answer = redis::cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut lane)
            .await;
        let ranges = answer.and_then(|answer| slots::read(answer, node));
        let ranges = ranges.map_err(|error| Unreachable::failed(node, error))?;
        if ranges.is_empty() {
            return Err(Unreachable::failed(
                node,
                "no node of its cluster has slots",
            ));
        }
        Ok(ranges)
    }

    fn server(&self, node: &Node) -> Arc<Server> {
        let (store, timeout) = (self.health.store().clone(), self.health.timeout());
        let health = Health::new(store, timeout, self.clock.clone()).of_node(node.to_string());
        Server::new(Found::At(node.clone()), self.access.clone(), health)
    }
}

impl Backend for Cluster {
    fn health(&self) -> &Health {
        &self.health
    }

    /// The cluster is up if any node works. The other nodes' keys are faults of the requests for them.
    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let ends = self.clock.elapsed() + within;
            let slots = self.learn(&self.slots.load_full(), within).await?;
            if slots.ready().next().is_some() {
                return Ok(());
            }
            let within = ends.saturating_sub(self.clock.elapsed());
            // In separate tasks: the first that works is enough here, but the state of the others must be known, too.
            let tries = slots.servers().map(|server| {
                let server = server.clone();
                rt::spawn(async move { server.try_out(within).await }).map(|tried| {
                    let down = |_| Err(StoreFault::Down);
                    tried.unwrap_or_else(down)
                })
            });
            select_ok(tries).await.map(drop)
        })
    }
}
