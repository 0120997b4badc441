//! Answers of other services: fetched once for all requests that wait, and remembered for a while.

use std::{convert::Infallible, sync::Arc, time::Duration};

use policies::Clock;
use quick_cache::sync::{EntryAction, EntryResult};

use super::{
    cache::{Cache, Weigh, Weighed, cache, weigh_text},
    client::Outbound,
    digest::Digest,
    error::HttpError,
    json::InvalidResponse,
};

/// How long a "no" is remembered at most, so that it soon gives way after a sign-in.
const NO_REMEMBERED: Duration = Duration::from_secs(1);

pub(crate) type Answer<T> = Result<T, ServiceFault>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceFault {
    #[error(transparent)]
    NoAnswer(#[from] HttpError),
    #[error("the status of the response is {0}")]
    Status(u16),
    #[error(transparent)]
    Invalid(#[from] InvalidResponse),
    #[error("it cannot be asked: {0}")]
    Unaskable(&'static str),
}

impl Weigh for ServiceFault {
    fn heap(&self) -> usize {
        weigh_text(self)
    }
}

/// The answers of one service, by the digest of the question.
pub(crate) struct Answers<T, E = ServiceFault> {
    time_to_live: Duration,
    /// Whether an answer is a "no", which is forgotten sooner.
    is_no: fn(&T) -> bool,
    cache: Cache<Remembered<T, E>>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Remembered<T, E> {
    answer: Result<T, E>,
    at: Duration,
    until: Duration,
}

impl<T: Weigh, E: Weigh> Weigh for Remembered<T, E> {
    fn heap(&self) -> usize {
        self.answer.heap()
    }
}

impl<T: Clone + Weigh, E: Clone + Weigh> Answers<T, E> {
    /// Remembers answers for `time_to_live`, and a "no" for a second at most, within the byte limit of each service.
    pub(crate) fn new(
        time_to_live: Option<Duration>,
        is_no: fn(&T) -> bool,
        outbound: &Outbound,
    ) -> Self {
        Self {
            time_to_live: time_to_live.unwrap_or_default(),
            is_no,
            cache: cache(outbound.caches.answers),
            clock: outbound.clock.clone(),
        }
    }

    /// The remembered answer, the one that another request waits for, or else the result of `ask`.
    pub(crate) async fn get(
        &self,
        of: &Digest,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked = self.get_unless(of, async { Ok::<_, Infallible>(ask.await) });
        asked.await.unwrap_or_else(|never| match never {})
    }

    /// Like [`get`](Self::get), but `ask` may refuse. The refusal applies only to its own request: others that wait ask
    /// themselves.
    pub(crate) async fn get_unless<R>(
        &self,
        of: &Digest,
        ask: impl Future<Output = Result<Result<T, E>, R>>,
    ) -> Result<Result<T, E>, R> {
        let asked_at = self.clock.elapsed();
        let found = self.cache.entry_async(of, |_, remembered| {
            let remembered = &remembered.value;
            // A request that waited takes the result, even if it has already expired.
            if remembered.until > asked_at || remembered.at >= asked_at {
                EntryAction::Retain(remembered.answer.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        });
        let guard = match found.await {
            EntryResult::Retained(answer) => return Ok(answer),
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard,
            // Nothing is removed, and only `ask` has a time limit.
            EntryResult::Removed(..) | EntryResult::Timeout => return ask.await,
        };
        let answer = ask.await?;
        let at = self.clock.elapsed();
        let remembered = Remembered {
            answer: answer.clone(),
            at,
            until: at
                + match &answer {
                    Ok(answer) if (self.is_no)(answer) => self.time_to_live.min(NO_REMEMBERED),
                    Ok(_) => self.time_to_live,
                    Err(_) => Duration::ZERO,
                },
        };
        // If the entry was dropped meanwhile, the next request asks again.
        let _ = guard.insert(Weighed::new(remembered));
        Ok(answer)
    }
}
