//! Finds the cluster node that has a key.

use std::sync::Arc;

use redis::{RedisResult, Value, from_redis_value};

use super::{
    connection::{Node, parse_node},
    keys::PREFIX,
    server::Server,
};
use crate::stores::backend::Backend as _;

const SLOTS: u16 = 16_384;

/// Consecutive slots of one node.
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) node: Node,
}

#[derive(Default)]
pub(super) struct Slots {
    /// The first and the last slot of each range, in order.
    ranges: Vec<(u16, u16, Arc<Server>)>,
    servers: Vec<Arc<Server>>,
}

impl Slots {
    /// `server` creates the server of a node.
    pub(super) fn new(mut ranges: Vec<Range>, server: impl Fn(&Node) -> Arc<Server>) -> Self {
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
            if let Some(prefix) = slots.probe_prefix(server) {
                server.set_probe_prefix(prefix);
            }
        }
        slots
    }

    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    pub(super) fn server_of(&self, slot: u16) -> Option<&Arc<Server>> {
        let index = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, server) = self.ranges.get(index)?;
        (*first <= slot).then_some(server)
    }

    pub(super) fn server_at(&self, node: &Node) -> Option<Arc<Server>> {
        let mut servers = self.servers.iter();
        servers.find(|server| server.node() == Some(node)).cloned()
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter()
    }

    /// The nodes that are known to work.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers
            .iter()
            .filter(|server| server.health().is_ready())
    }

    /// A node for operations without a key.
    pub(super) fn any(&self) -> Option<Arc<Server>> {
        self.ready().next().or(self.servers.first()).cloned()
    }

    /// A prefix whose keys are on this node.
    fn probe_prefix(&self, server: &Arc<Server>) -> Option<String> {
        let prefixes = (0..4 * u32::from(SLOTS)).map(|tag| format!("{PREFIX}:probe:{{{tag}}}"));
        let is_here = |prefix: &String| {
            let owner = self.server_of(slot_of(prefix));
            owner.is_some_and(|owner| Arc::ptr_eq(owner, server))
        };
        prefixes.into_iter().find(is_here)
    }
}

/// The slot of a key, or of its part in braces, if there is one.
pub(super) fn slot_of(key: &str) -> u16 {
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
pub(super) fn parse_slots(answer: Value, source: &Node) -> RedisResult<Vec<Range>> {
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
