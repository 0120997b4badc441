//! Caches with a limit in bytes.

use policies::{Claims, Denial, Member, Subject};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync};
use serde_json::Value;

use super::digest::Digest;

/// In bytes, for the verified tokens of all identities.
const TOTAL_TOKENS: u64 = 8 << 20;

/// In bytes, for the responses of all services.
const TOTAL_RESPONSES: u64 = 8 << 20;

/// The minimum size of a shard: an entry must be small compared to it.
const MIN_SHARD_BYTES: u64 = 512 << 10;
const MAX_SHARDS: u64 = 16;

/// quick_cache sizes its list of evicted keys by this.
const TYPICAL_ENTRY_BYTES: u64 = 4 << 10;

/// The capacity of each cache, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct CacheCapacity {
    pub(crate) tokens: u64,
    pub(crate) responses: u64,
}

impl CacheCapacity {
    /// Divides the totals among this many caches of tokens and of responses.
    pub(crate) fn divided(token_caches: usize, response_caches: usize) -> Self {
        Self {
            tokens: TOTAL_TOKENS / token_caches.max(1) as u64,
            responses: TOTAL_RESPONSES / response_caches.max(1) as u64,
        }
    }
}

impl Default for CacheCapacity {
    fn default() -> Self {
        Self::divided(1, 1)
    }
}

pub(crate) type Cache<T> = sync::Cache<Digest, CacheEntry<T>, ByteWeighter>;

/// A value and its size, which is computed once.
#[derive(Clone)]
pub(crate) struct CacheEntry<T> {
    pub(crate) value: T,
    bytes: u64,
}

#[derive(Clone)]
pub(crate) struct ByteWeighter {
    /// The weight of an entry that would not fit into its shard. The entry is kept, because the requests that wait for
    /// it find it in the cache, but it evicts all others of the shard.
    max: u64,
}

impl<T> Weighter<Digest, CacheEntry<T>> for ByteWeighter {
    fn weight(&self, _: &Digest, entry: &CacheEntry<T>) -> u64 {
        entry.bytes.min(self.max)
    }
}

pub(crate) fn new_cache<T: Clone>(bytes: u64) -> Cache<T> {
    let shards = (bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
    // Rounded down to a power of two.
    let shards = 1 << shards.ilog2();
    let entries = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX);
    let options = OptionsBuilder::new()
        .shards(shards)
        .estimated_items_capacity(entries)
        .weight_capacity(bytes)
        .build()
        .expect("both capacities are set");
    let max = (bytes / shards as u64) / 10 * 9;
    sync::Cache::with_options(
        options,
        ByteWeighter { max },
        DefaultHashBuilder::default(),
        sync::DefaultLifecycle::default(),
    )
}

impl<T: HeapSize> CacheEntry<T> {
    pub(crate) fn new(value: T) -> Self {
        // The cache's table has up to three slots per entry, each with some words of overhead.
        let slots = 3 * (size_of::<Digest>() + size_of::<Self>() + 3 * size_of::<u64>());
        let bytes = (slots + value.heap_size()) as u64;
        Self { value, bytes }
    }
}

impl<T> CacheEntry<T> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The bytes that a value occupies besides its own size, rounded up generously.
pub(crate) trait HeapSize {
    fn heap_size(&self) -> usize;
}

/// The allocator rounds sizes up by at most a quarter.
fn allocation(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else {
        16 + bytes + bytes / 4
    }
}

impl HeapSize for bool {
    fn heap_size(&self) -> usize {
        0
    }
}

impl<T: HeapSize> HeapSize for Option<T> {
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, HeapSize::heap_size)
    }
}

impl<T: HeapSize, E: HeapSize> HeapSize for Result<T, E> {
    fn heap_size(&self) -> usize {
        match self {
            Ok(value) => value.heap_size(),
            Err(error) => error.heap_size(),
        }
    }
}

impl HeapSize for Member {
    fn heap_size(&self) -> usize {
        let workspace = self.workspace.as_ref();
        let workspace = workspace.map_or(0, |workspace| workspace.as_str().len());
        let roles = self.roles.iter().map(|role| allocation(role.capacity()));
        allocation(workspace)
            + allocation(self.roles.capacity() * size_of::<String>())
            + roles.sum::<usize>()
    }
}

/// The message of an error is short, and its sources are at most as long again.
pub(crate) fn error_heap_size(error: &impl std::error::Error) -> usize {
    2 * allocation(error.to_string().len())
}

impl HeapSize for Denial {
    fn heap_size(&self) -> usize {
        error_heap_size(self)
    }
}

impl HeapSize for std::sync::Arc<Subject> {
    fn heap_size(&self) -> usize {
        allocation(size_of::<Subject>() + 2 * size_of::<usize>())
            + allocation(self.id.as_str().len() + 2 * size_of::<usize>())
            + self.claims.heap_size()
    }
}

impl HeapSize for Claims {
    fn heap_size(&self) -> usize {
        /// A node of a B-tree has eleven entries, and an inner node also has twelve edges.
        const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16 * size_of::<u64>();
        if self.is_empty() {
            return 0;
        }
        let entries = self
            .iter()
            .map(|(name, value)| allocation(name.capacity()) + value.heap_size());
        // All nodes but one have at least five entries.
        (1 + self.len() / 5) * NODE + entries.sum::<usize>()
    }
}

impl HeapSize for Value {
    fn heap_size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => allocation(text.capacity()),
            Self::Array(values) => {
                let entries = values.iter().map(HeapSize::heap_size);
                allocation(values.capacity() * size_of::<Self>()) + entries.sum::<usize>()
            }
            Self::Object(members) => members.heap_size(),
        }
    }
}
