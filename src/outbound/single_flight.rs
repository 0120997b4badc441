//! A single-flight cache: concurrent requests share one call to a service, and its response is cached for a while.

use std::{convert::Infallible, sync::Arc, time::Duration};

use policies::Clock;
use quick_cache::sync::{EntryAction, EntryResult};

use super::{
    cache::{Cache, CacheEntry, HeapSize, error_heap_size, new_cache},
    client::Outbound,
    digest::Digest,
    error::HttpError,
    json::InvalidResponse,
};

/// A negative response must not outlive a sign-in by much.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);

pub(crate) type ServiceResult<T> = Result<T, ServiceFault>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceFault {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("unexpected status {0}")]
    Status(u16),
    #[error(
        "unexpected status {status}, a redirect to `{target}`; the gate does not follow redirects"
    )]
    Redirect { status: u16, target: String },
    #[error(transparent)]
    InvalidResponse(#[from] InvalidResponse),
    #[error("cannot build the request: {0}")]
    InvalidRequest(&'static str),
}

impl HeapSize for ServiceFault {
    fn heap_size(&self) -> usize {
        error_heap_size(self)
    }
}

/// The cached results of one service. The key is a digest of everything that the request depends on.
pub(crate) struct SingleFlightCache<T, E = ServiceFault> {
    ttl: Duration,
    is_negative: fn(&T) -> bool,
    cache: Cache<CachedResult<T, E>>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct CachedResult<T, E> {
    result: Result<T, E>,
    fetched_at: Duration,
    expires_at: Duration,
}

impl<T: HeapSize, E: HeapSize> HeapSize for CachedResult<T, E> {
    fn heap_size(&self) -> usize {
        self.result.heap_size()
    }
}

impl<T: Clone + HeapSize, E: Clone + HeapSize> SingleFlightCache<T, E> {
    /// Caches values for `ttl`, negative ones for at most a second, and errors not at all.
    pub(crate) fn new(
        ttl: Option<Duration>,
        is_negative: fn(&T) -> bool,
        outbound: &Outbound,
    ) -> Self {
        Self {
            ttl: ttl.unwrap_or_default(),
            is_negative,
            cache: new_cache(outbound.caches.responses),
            clock: outbound.clock.clone(),
        }
    }

    /// Returns the cached result, waits for a running fetch of the same key, or runs `fetch`.
    pub(crate) async fn get(
        &self,
        key: &Digest,
        fetch: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let fetched = self.get_or_refuse(key, async { Ok::<_, Infallible>(fetch.await) });
        fetched.await.unwrap_or_else(|never| match never {})
    }

    /// Like [`get`](Self::get), but `fetch` may refuse to call the service. The refusal applies only to its own request:
    /// others that wait run their own fetch.
    pub(crate) async fn get_or_refuse<R>(
        &self,
        key: &Digest,
        fetch: impl Future<Output = Result<Result<T, E>, R>>,
    ) -> Result<Result<T, E>, R> {
        let started_at = self.clock.elapsed();
        let found = self.cache.entry_async(key, |_, cached| {
            let cached = &cached.value;
            // A request that waited takes the result, even if it has already expired.
            if cached.expires_at > started_at || cached.fetched_at >= started_at {
                EntryAction::Retain(cached.result.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        });
        let guard = match found.await {
            EntryResult::Retained(result) => return Ok(result),
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard,
            // The closure above removes nothing and the wait has no timeout: `fetch` has its own.
            EntryResult::Removed(..) | EntryResult::Timeout => return fetch.await,
        };
        let result = fetch.await?;
        let ttl = match &result {
            Ok(value) if (self.is_negative)(value) => self.ttl.min(MAX_NEGATIVE_TTL),
            Ok(_) => self.ttl,
            Err(_) => Duration::ZERO,
        };
        let fetched_at = self.clock.elapsed();
        let cached = CachedResult {
            result: result.clone(),
            fetched_at,
            expires_at: fetched_at + ttl,
        };
        // If the entry was evicted meanwhile, the next request fetches again.
        let _ = guard.insert(CacheEntry::new(cached));
        Ok(result)
    }
}
