//! A cluster. Each key belongs to one node, and each node is up or down by itself.

use std::{sync::Arc, time::Duration};

use actix_web::rt;
use arc_swap::ArcSwap;
use futures_util::future::{FutureExt as _, LocalBoxFuture, select_ok};
use policies::Clock;
use redis::RedisResult;
use tokio::{sync::Mutex, time::timeout};

use super::super::{
    backend::Backend,
    fault::{StoreFault, Unreachable},
    health::Health,
    kind::OpenOptions,
};
use super::{
    connection::{Connection, Node},
    server::{Client, Reply, Server},
    slots::{Range, Slots, parse_slots, slot_of},
    url::Endpoint,
};

/// How many redirects one operation follows.
const MAX_REDIRECTS: usize = 4;

/// How many known nodes to ask for the slots, besides those of the URL.
const MAX_ASKED_NODES: usize = 3;

pub(super) struct Cluster {
    seeds: Vec<Node>,
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    health: Health,
    slots: ArcSwap<Slots>,
    /// Held while the slots are being learned.
    learning: Mutex<()>,
}

impl Cluster {
    pub(super) fn new(
        seeds: Vec<Node>,
        client: Arc<Client>,
        options: &OpenOptions<'_>,
    ) -> Arc<Self> {
        Arc::new(Self {
            seeds,
            client,
            health: options.health(),
            clock: options.context.clock.clone(),
            slots: ArcSwap::default(),
            learning: Mutex::default(),
        })
    }

    /// Runs one operation within its time limit, on the node that has `key`, or on any node if there is no key.
    pub(super) async fn run<T>(
        self: &Arc<Self>,
        key: Option<&str>,
        read_only: bool,
        operation: &impl AsyncFn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        if !self.health.is_up() {
            return Err(StoreFault::Down);
        }
        let done = self.run_on_node(key, read_only, operation).await;
        match &done {
            Ok(_) => self.health.record_success(),
            // Perhaps slots have moved, or all nodes are down.
            Err(_) => self.probe_after_fault(),
        }
        done
    }

    async fn run_on_node<T>(
        self: &Arc<Self>,
        key: Option<&str>,
        read_only: bool,
        operation: &impl AsyncFn(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, StoreFault> {
        let ends = self.clock.elapsed() + self.health.timeout();
        let left = || ends.saturating_sub(self.clock.elapsed());
        let mut slots = self.slots.load_full();
        if slots.is_empty() {
            slots = self.learn(&slots, left()).await?;
        }
        let server = match key {
            Some(key) => slots.server_of(slot_of(key)).cloned(),
            None => slots.any(),
        };
        let mut server = server.ok_or(Unreachable::NoHost)?;
        let mut asking = false;
        for _ in 0..MAX_REDIRECTS {
            let redirect = match server.run(read_only, asking, left(), operation).await? {
                Reply::Done(done) => return Ok(done),
                Reply::Redirect(redirect) => redirect,
            };
            asking = redirect.asking;
            if !asking {
                slots = self.learn(&slots, left()).await?;
            }
            let known = slots.server_at(&redirect.node);
            server = known.unwrap_or_else(|| self.server(&redirect.node));
        }
        Err(StoreFault::Refused("too many redirects".to_owned()))
    }

    /// Asks which node has which slots, unless they were updated since `known`.
    async fn learn(&self, known: &Arc<Slots>, within: Duration) -> Result<Arc<Slots>, Unreachable> {
        let ends = self.clock.elapsed() + within;
        let learning = timeout(within, self.learning.lock()).await;
        let _learning = learning.map_err(|_| Unreachable::Timeout("the cluster".to_owned()))?;
        let current = self.slots.load_full();
        if !Arc::ptr_eq(&current, known) {
            return Ok(current);
        }
        let ready = current.ready().filter_map(|server| server.node().cloned());
        let mut nodes: Vec<_> = ready.take(MAX_ASKED_NODES).collect();
        let seeds = self.seeds.iter().filter(|seed| !nodes.contains(seed));
        let seeds: Vec<_> = seeds.cloned().collect();
        nodes.extend(seeds);
        let within = ends.saturating_sub(self.clock.elapsed());
        let hosts = &self.client.dialer.hosts;
        let ranges = hosts.first(&nodes, within, |node, share| self.ranges(node, share));
        let slots = Slots::new(ranges.await?, |node| {
            current.server_at(node).unwrap_or_else(|| self.server(node))
        });
        let slots = Arc::new(slots);
        self.slots.store(slots.clone());
        Ok(slots)
    }

    async fn ranges(&self, node: &Node, within: Duration) -> Result<Vec<Range>, Unreachable> {
        let Client { dialer, login, .. } = &*self.client;
        let mut connection = dialer.connect(node, login, within).await?;
        let answer = redis::cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut connection)
            .await;
        let ranges = answer.and_then(|answer| parse_slots(answer, node));
        let ranges = ranges.map_err(|error| Unreachable::failed(node, error))?;
        if ranges.is_empty() {
            return Err(Unreachable::failed(node, "its cluster has no slots"));
        }
        Ok(ranges)
    }

    fn server(&self, node: &Node) -> Arc<Server> {
        let (store, timeout) = (self.health.store().clone(), self.health.timeout());
        let health = Health::new(store, timeout, self.clock.clone()).of_node(node.to_string());
        Server::new(Endpoint::Node(node.clone()), self.client.clone(), health)
    }
}

impl Backend for Cluster {
    fn health(&self) -> &Health {
        &self.health
    }

    /// The cluster is up if any node works. Requests for keys of the other nodes fail.
    fn probe(self: Arc<Self>, within: Duration) -> LocalBoxFuture<'static, Result<(), StoreFault>> {
        Box::pin(async move {
            let ends = self.clock.elapsed() + within;
            let slots = self.learn(&self.slots.load_full(), within).await?;
            if slots.ready().next().is_some() {
                return Ok(());
            }
            let within = ends.saturating_sub(self.clock.elapsed());
            // In separate tasks, because the first success suffices here, but the other probes must be recorded, too.
            let probes = slots.servers().map(|server| {
                let server = server.clone();
                rt::spawn(async move { server.probe_and_record(within).await }).map(|probed| {
                    let down = |_| Err(StoreFault::Down);
                    probed.unwrap_or_else(down)
                })
            });
            select_ok(probes).await.map(drop)
        })
    }
}
