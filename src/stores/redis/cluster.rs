//! A cluster. Each key belongs to one node, and each node is up or down by itself.

use std::{sync::Arc, time::Duration};

use actix_web::rt;
use arc_swap::ArcSwap;
use futures_util::future::{FutureExt as _, join_all, select_ok};
use policies::Clock;
use redis::{RedisResult, Value, from_redis_value};
use tokio::{sync::Mutex, time::timeout};

use super::{
    connection::{Connection, Node, parse_node},
    errors::explain,
    eviction::observe_repeatedly,
    server::{Client, Reply, Server},
    url::Endpoint,
};
use crate::stores::{
    fault::{StoreFault, Unreachable},
    health::{Backend, Health},
    kind::OpenOptions,
    remark::Remark,
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
        let ends = self.clock.elapsed() + self.health.timeout();
        let left = || ends.saturating_sub(self.clock.elapsed());
        let done = async {
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
        };
        let done = done.await;
        match &done {
            Ok(_) => self.health.record_success(),
            // Perhaps slots have moved, or all nodes are down.
            Err(_) => self.probe_after_fault(),
        }
        done
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
        let ranges = hosts.first(&nodes, within, async |node: &Node, share| {
            self.ranges(node, share).await
        });
        let prefix = self.client.keys.probe();
        let slots = Slots::new(ranges.await?, &prefix, |node| {
            current.server_at(node).unwrap_or_else(|| self.server(node))
        });
        let is_new = |server: &&Arc<Server>| {
            let node = server.node();
            !current.is_empty() && node.is_some_and(|node| current.server_at(node).is_none())
        };
        for server in slots.servers().filter(is_new) {
            let node = server.node().map(ToString::to_string);
            let reason = "it was promoted, or keys moved to it; a promoted replica may lack the latest counts and sessions";
            tracing::warn!(store = %self.health.store(), node, reason, "another node of the store has keys");
        }
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
        let ranges =
            ranges.map_err(|error| Unreachable::failed(node, explain(&error, "the server")))?;
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
    async fn probe(self: &Arc<Self>, within: Duration) -> Result<(), StoreFault> {
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
    }

    /// Reads what each node says of itself.
    fn watch(self: &Arc<Self>) {
        observe_repeatedly(self, async |cluster| {
            let slots = cluster.slots.load_full();
            join_all(slots.servers().map(Server::observe)).await;
        });
    }

    fn remarks(&self) -> Vec<Remark> {
        let slots = self.slots.load();
        // One node suffices as an example. The log names each.
        let eviction = slots.servers().find_map(|server| server.eviction());
        let rights = self.client.remarks();
        eviction.into_iter().chain(rights).collect()
    }
}

const SLOTS: u16 = 16_384;

/// Consecutive slots of one node.
struct Range {
    first: u16,
    last: u16,
    node: Node,
}

#[derive(Default)]
struct Slots {
    /// The first and the last slot of each range, in order.
    ranges: Vec<(u16, u16, Arc<Server>)>,
    servers: Vec<Arc<Server>>,
}

impl Slots {
    /// `server` creates the server of a node.
    fn new(
        mut ranges: Vec<Range>,
        probe_prefix: &str,
        server: impl Fn(&Node) -> Arc<Server>,
    ) -> Self {
        let mut slots = Self::default();
        ranges.sort_unstable_by_key(|range| range.first);
        for Range { first, last, node } in ranges {
            let server = slots.server_at(&node).unwrap_or_else(|| {
                let server = server(&node);
                slots.servers.push(server.clone());
                server
            });
            slots.ranges.push((first, last, server));
        }
        for server in &slots.servers {
            if let Some(prefix) = slots.probe_prefix(server, probe_prefix) {
                server.set_probe_prefix(prefix);
            }
        }
        slots
    }

    fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    fn server_of(&self, slot: u16) -> Option<&Arc<Server>> {
        let index = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, server) = self.ranges.get(index)?;
        (*first <= slot).then_some(server)
    }

    fn server_at(&self, node: &Node) -> Option<Arc<Server>> {
        let mut servers = self.servers.iter();
        servers.find(|server| server.node() == Some(node)).cloned()
    }

    fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter()
    }

    /// The nodes that are known to work.
    fn ready(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers
            .iter()
            .filter(|server| server.health().is_ready())
    }

    /// A node for operations without a key.
    fn any(&self) -> Option<Arc<Server>> {
        self.ready().next().or(self.servers.first()).cloned()
    }

    /// A prefix whose keys are on this node.
    fn probe_prefix(&self, server: &Arc<Server>, prefix: &str) -> Option<String> {
        let prefixes = (0..4 * u32::from(SLOTS)).map(|tag| format!("{prefix}:{{{tag}}}"));
        let is_here = |prefix: &String| {
            let owner = self.server_of(slot_of(prefix));
            owner.is_some_and(|owner| Arc::ptr_eq(owner, server))
        };
        prefixes.into_iter().find(is_here)
    }
}

/// The slot of a key, or of its part in braces, if there is one.
fn slot_of(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag });
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the Redis Cluster specification demands.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            let carry = if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            (crc << 1) ^ carry
        })
    })
}

/// Parses the answer of the node `source` to `CLUSTER SLOTS`.
fn parse_slots(answer: Value, source: &Node) -> RedisResult<Vec<Range>> {
    // A row is the first slot, the last slot, the primary and its replicas. A node is its host, its port, and more.
    let rows: Vec<Vec<Value>> = from_redis_value(answer)?;
    let mut ranges = Vec::new();
    for row in rows {
        let [first, last, primary, ..] = &row[..] else {
            continue;
        };
        let primary: Vec<Value> = from_redis_value(primary.clone())?;
        let [host, port, ..] = &primary[..] else {
            continue;
        };
        let host: Option<String> = from_redis_value(host.clone())?;
        let port: u16 = from_redis_value(port.clone())?;
        let Some(node) = parse_node(host.as_deref().unwrap_or_default(), port, source) else {
            continue;
        };
        ranges.push(Range {
            first: from_redis_value(first.clone())?,
            last: from_redis_value(last.clone())?,
            node,
        });
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    }

    #[test]
    fn node_without_a_host_is_on_the_host_that_answered() {
        let asked = Node::Tcp("10.0.0.1".to_owned(), 1);
        let range = |host: Value| {
            let node = Value::Array(vec![host, Value::Int(6379)]);
            Value::Array(vec![Value::Int(0), Value::Int(9), node.clone(), node])
        };
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answer = vec![
            range(text("db-1")),
            range(Value::Nil),
            range(text("")),
            range(text("?")),
        ];
        let ranges = parse_slots(Value::Array(answer), &asked).expect("a valid answer");
        let nodes: Vec<_> = ranges.iter().map(|range| range.node.to_string()).collect();
        assert_eq!(nodes, ["db-1:6379", "10.0.0.1:6379", "10.0.0.1:6379"]);
    }
}
