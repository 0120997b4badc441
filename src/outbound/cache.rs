//! Caches that are bounded in bytes, whatever clients send.

use policies::{Claims, Denial, Member, Subject};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync};
use serde_json::Value;

use crate::{
    identities::Remembers,
    outbound::{answers::ServiceFault, digest::Digest},
    server::settings::Settings,
    stores::StoreFault,
};

/// In bytes, for the verified tokens of all identities.
const ALL_TOKENS: u64 = 8 << 20;

/// In bytes, for the remembered answers of all other services.
const ALL_ANSWERS: u64 = 8 << 20;

/// The minimum size of a shard: an entry must be small compared to it.
const SHARD_BYTES: u64 = 512 << 10;
const MAX_SHARDS: u64 = 16;

/// The typical size of an entry. It decides how many evicted keys the cache remembers.
const USUAL_ENTRY_BYTES: u64 = 4 << 10;

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub struct CacheShares {
    pub(crate) tokens: u64,
    pub(crate) answers: u64,
}

impl CacheShares {
    /// Divides the total among the caches of `settings`.
    pub(crate) fn of(settings: &Settings) -> Self {
        let (mut tokens, mut answers) = (0, 0);
        for (_, identity) in &settings.identities {
            match identity.profile().remembers {
                Remembers::Nothing => {}
                Remembers::Tokens => tokens += 1,
                Remembers::Answers => answers += 1,
            }
        }
        let policies = settings.policies.iter();
        let asking = policies.filter(|(_, policy)| policy.is_remote());
        answers += asking.count() as u64;
        let all = Self::default();
        Self {
            tokens: all.tokens / tokens.max(1),
            answers: all.answers / answers.max(1),
        }
    }
}

impl Default for CacheShares {
    fn default() -> Self {
        Self {
            tokens: ALL_TOKENS,
            answers: ALL_ANSWERS,
        }
    }
}

pub(crate) type Cache<T> = sync::Cache<Digest, Weighed<T>, ByBytes>;

/// A value, weighed once.
#[derive(Clone)]
pub(crate) struct Weighed<T> {
    pub(crate) value: T,
    bytes: u64,
}

#[derive(Clone)]
pub(crate) struct ByBytes {
    /// The weight of an entry that would not fit into its shard. The entry is kept, because requests that wait for an
    /// answer find it in the cache, but it evicts all others of the shard.
    most: u64,
}

impl<T> Weighter<Digest, Weighed<T>> for ByBytes {
    fn weight(&self, _: &Digest, entry: &Weighed<T>) -> u64 {
        entry.bytes.min(self.most)
    }
}

pub(crate) fn cache<T: Clone>(bytes: u64) -> Cache<T> {
    let shards = (bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
    // Rounded down to a power of two.
    let shards = 1 << shards.ilog2();
    let entries = usize::try_from(bytes / USUAL_ENTRY_BYTES).unwrap_or(usize::MAX);
    let options = OptionsBuilder::new()
        .shards(shards)
        .estimated_items_capacity(entries)
        .weight_capacity(bytes)
        .build()
        .expect("both capacities are set");
    let most = (bytes / shards as u64) / 10 * 9;
    sync::Cache::with_options(
        options,
        ByBytes { most },
        DefaultHashBuilder::default(),
        sync::DefaultLifecycle::default(),
    )
}

impl<T: Weigh> Weighed<T> {
    pub(crate) fn new(value: T) -> Self {
        // The cache has room for up to three times its entries, each with some words of overhead.
        let place = 3 * (size_of::<Digest>() + size_of::<Self>() + 3 * size_of::<u64>());
        let bytes = (place + value.heap()) as u64;
        Self { value, bytes }
    }
}

impl<T> Weighed<T> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What a value takes besides its own size, in bytes, rounded up generously.
pub(crate) trait Weigh {
    fn heap(&self) -> usize;
}

/// The allocator rounds sizes up, by a quarter at most.
fn allocation(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else {
        16 + bytes + bytes / 4
    }
}

impl Weigh for bool {
    fn heap(&self) -> usize {
        0
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn heap(&self) -> usize {
        self.as_ref().map_or(0, Weigh::heap)
    }
}

impl<T: Weigh, E: Weigh> Weigh for Result<T, E> {
    fn heap(&self) -> usize {
        match self {
            Ok(value) => value.heap(),
            Err(error) => error.heap(),
        }
    }
}

impl Weigh for Member {
    fn heap(&self) -> usize {
        let workspace = self.workspace.as_ref();
        let workspace = workspace.map_or(0, |workspace| workspace.as_str().len());
        let roles = self.roles.iter().map(|role| allocation(role.capacity()));
        allocation(workspace)
            + allocation(self.roles.capacity() * size_of::<String>())
            + roles.sum::<usize>()
    }
}

/// Texts of errors are short, and their sources are at most as long again.
macro_rules! weigh_in_words {
    ($($error:ty),+) => {
        $(impl Weigh for $error {
            fn heap(&self) -> usize {
                2 * allocation(self.to_string().len())
            }
        })+
    };
}

weigh_in_words!(Denial, ServiceFault, StoreFault);

impl Weigh for std::sync::Arc<Subject> {
    fn heap(&self) -> usize {
        allocation(size_of::<Subject>() + 2 * size_of::<usize>())
            + allocation(self.id.as_str().len() + 2 * size_of::<usize>())
            + self.claims.heap()
    }
}

impl Weigh for Claims {
    fn heap(&self) -> usize {
        /// A node of a B-tree has room for eleven entries, and an inner one for twelve edges besides.
        const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16 * size_of::<u64>();
        if self.is_empty() {
            return 0;
        }
        let entries = self
            .iter()
            .map(|(name, value)| allocation(name.capacity()) + value.heap());
        // All nodes but one have at least five entries.
        (1 + self.len() / 5) * NODE + entries.sum::<usize>()
    }
}

impl Weigh for Value {
    fn heap(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => allocation(text.capacity()),
            Self::Array(values) => {
                let entries = values.iter().map(Weigh::heap);
                allocation(values.capacity() * size_of::<Self>()) + entries.sum::<usize>()
            }
            Self::Object(members) => members.heap(),
        }
    }
}
