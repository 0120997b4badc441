//! Keeps the tasks that awc starts beside a request from running.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::task::LocalSet;

/// Awaits `sending` with a task set of its own. The tasks that it spawns never run, and are dropped with the set.
///
/// For each request awc starts the clock by which actix's servers write `Date`. A client does not need it: its task
/// ticks after a millisecond, then twice per second, and wakes the worker when it begins. That costs 5 % of a request.
/// awc also starts tasks that shut down connections that were kept for too long; without them these connections close
/// at once.
pub(super) fn suppress_awc_tasks<F: Future>(sending: F) -> SuppressTasks<F> {
    SuppressTasks {
        tasks: LocalSet::new(),
        sending,
    }
}

pin_project! {
    /// The future of [`suppress_awc_tasks`].
    pub(super) struct SuppressTasks<F> {
        tasks: LocalSet,
        #[pin]
        sending: F,
    }
}

impl<F: Future> Future for SuppressTasks<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.tasks.enter();
        this.sending.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use tokio::{
        sync::oneshot,
        task::{spawn_local, yield_now},
    };

    use super::*;

    #[tokio::test]
    async fn what_is_spawned_never_runs_and_ends_with_the_request() {
        let test = async {
            let ran = Rc::new(Cell::new(false));
            let (held_by_the_task, is_dropped) = oneshot::channel::<()>();
            let output = suppress_awc_tasks(async {
                let ran = ran.clone();
                spawn_local(async move {
                    ran.set(true);
                    drop(held_by_the_task);
                });
                // Without the task set it would have run by now.
                yield_now().await;
                "sent"
            });
            assert_eq!(output.await, "sent");
            assert!(is_dropped.await.is_err(), "it is dropped, not sent");
            assert!(!ran.get());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn tasks_that_wait_for_what_is_done_meanwhile_go_on() {
        let test = async {
            let (tell, told) = oneshot::channel();
            let waiting = spawn_local(told);
            suppress_awc_tasks(async { tell.send(7) })
                .await
                .expect("somebody waits");
            let heard = waiting.await.expect("it ends");
            assert_eq!(heard, Ok(7));
        };
        LocalSet::new().run_until(test).await;
    }
}
