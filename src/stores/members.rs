//! The port through which a database is asked for memberships, and what its backends share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::rt;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::LocalBoxFuture;

/// The most rows of an answer that are read: more roles has nobody.
pub(super) const MAX_ROWS: usize = 100;

/// A database that memberships are looked up in; nothing is written to it.
pub trait MemberDatabase: Send + Sync {
    /// The first column of each row that `query` finds, where `$1` is the user and `$2` the workspace.
    ///
    /// # Errors
    ///
    /// Resolves to a [`QueryError`] when there is no answer of use.
    fn first_column<'a>(
        &'a self,
        query: &'a str,
        user: &'a str,
        workspace: &'a str,
    ) -> LocalBoxFuture<'a, Result<Vec<Option<String>>, QueryError>>;

    /// Whether it can be asked. One that cannot is probed until it can, and nobody waits for that.
    fn is_healthy(&self) -> bool;
}

/// Why a database has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It cannot be reached, or was not a moment ago.
    #[error("the database cannot be reached: {0}")]
    Down(String),
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    Timeout,
    /// It answered, but not what was asked.
    #[error("the query fails: {0}")]
    Query(String),
}

impl QueryError {
    /// The fault of a query whose first column holds something else.
    pub(super) fn no_text(found: impl std::fmt::Display) -> Self {
        Self::Query(format!(
            "the first column must be the role, a text or null, and is {found}"
        ))
    }
}

/// Whether a backend can be asked.
pub(super) struct Health {
    is_up: AtomicBool,
}

impl Health {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_up: AtomicBool::new(true),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Fails at once while the backend is down.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.is_up() {
            Ok(())
        } else {
            Err(QueryError::Down("it is probed".to_owned()))
        }
    }

    /// Notes that the backend is down, and has it probed beside the requests, ever less often, until it is up.
    pub(super) fn is_down<P>(self: &Arc<Self>, probe: impl Fn() -> P + 'static)
    where
        P: Future<Output = bool> + 'static,
    {
        const FIRST_WAIT: Duration = Duration::from_millis(100);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);

        if !self.is_up.swap(false, Ordering::Relaxed) {
            // Somebody does.
            return;
        }
        let health = Arc::downgrade(self);
        rt::spawn(async move {
            let waits = ExponentialBuilder::new()
                .with_min_delay(FIRST_WAIT)
                .with_max_delay(LONGEST_WAIT)
                .without_max_times()
                .with_jitter();
            for wait in waits.build() {
                tokio::time::sleep(wait).await;
                // The backend was replaced meanwhile.
                if health.strong_count() == 0 {
                    return;
                }
                if probe().await {
                    break;
                }
            }
            if let Some(health) = health.upgrade() {
                health.is_up.store(true, Ordering::Relaxed);
            }
        });
    }
}
