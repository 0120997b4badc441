//! The answers of other services: asked for once however many requests wait, and remembered
//! for a while.

use std::{convert::Infallible, sync::Arc, time::Duration};

use policies::Clock;
use quick_cache::sync::{EntryAction, EntryResult};

use crate::outbound::{
    HttpError, InvalidResponse, Outbound,
    cache::{Cache, Weigh, Weighed, cache},
    digest::Digest,
};

/// The longest that a "no" is remembered: whoever signs in is not to wait for it to be forgotten.
const NO_REMEMBERED: Duration = Duration::from_secs(1);

/// What a service says, or why it does not.
pub(crate) type Answer<T> = Result<T, ServiceFault>;

/// Why a service does not say what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceFault {
    /// It gave no answer.
    #[error(transparent)]
    NoAnswer(#[from] HttpError),
    /// It responded with a status that says nothing.
    #[error("the status of the response is {0}")]
    Status(u16),
    /// Its response cannot be used.
    #[error(transparent)]
    Invalid(#[from] InvalidResponse),
    /// It cannot be asked.
    #[error("it cannot be asked: {0}")]
    Unaskable(&'static str),
}

/// The answers of one service, by the digest of what it was asked about.
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
    /// Remembers answers for `time_to_live`, and a "no" for a second at most, within the bytes that each service has.
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

    /// The answer: the one that is remembered, the one that another request waits for, or
    /// else what `ask` brings.
    pub(crate) async fn get(
        &self,
        of: &Digest,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let asked = self.get_unless(of, async { Ok::<_, Infallible>(ask.await) });
        asked.await.unwrap_or_else(|never| match never {})
    }

    /// The same for an `ask` that may refuse to ask. Its refusal is its own: another request that waits asks itself.
    pub(crate) async fn get_unless<R>(
        &self,
        of: &Digest,
        ask: impl Future<Output = Result<Result<T, E>, R>>,
    ) -> Result<Result<T, E>, R> {
        let asked_at = self.clock.elapsed();
        let found = self.cache.entry_async(of, |_, remembered| {
            let remembered = &remembered.value;
            // Whoever waited takes what came, however short it lives.
            if remembered.until > asked_at || remembered.at >= asked_at {
                EntryAction::Retain(remembered.answer.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        });
        let guard = match found.await {
            EntryResult::Retained(answer) => return Ok(answer),
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard,
            // Nothing is removed, and there is no time limit but that of `ask`.
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
        // When it was dropped meanwhile, the next request asks anew.
        let _ = guard.insert(Weighed::new(remembered));
        Ok(answer)
    }
}
