//! Suppresses the tasks that awc spawns for each request.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::task::LocalSet;

/// Awaits `request` in a task set of its own. The tasks that it spawns never run, and are dropped with the set.
///
/// For each request, awc starts the clock with which actix's servers write `Date`. A client does not need it, and its
/// task wakes the worker at the start, after a millisecond, and then twice per second. That costs 5 % of a request. awc
/// also spawns tasks that shut down connections that were idle for too long. Without them, these connections close at
/// once.
pub(super) fn suppress_awc_tasks<F: Future>(request: F) -> SuppressTasks<F> {
    SuppressTasks {
        tasks: LocalSet::new(),
        request,
    }
}

pin_project! {
    /// The future of [`suppress_awc_tasks`].
    pub(super) struct SuppressTasks<F> {
        tasks: LocalSet,
        #[pin]
        request: F,
    }
}

impl<F: Future> Future for SuppressTasks<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.tasks.enter();
        this.request.poll(context)
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
    async fn spawned_tasks_never_run_and_are_dropped_with_the_request() {
        let test = async {
            let ran = Rc::new(Cell::new(false));
            let (dropped_with_the_task, is_dropped) = oneshot::channel::<()>();
            let output = suppress_awc_tasks(async {
                let ran = ran.clone();
                spawn_local(async move {
                    ran.set(true);
                    drop(dropped_with_the_task);
                });
                // Without the task set, the task would have run by now.
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
    async fn tasks_outside_of_the_request_continue() {
        let test = async {
            let (tell, told) = oneshot::channel();
            let waiting = spawn_local(told);
            suppress_awc_tasks(async { tell.send(7) })
                .await
                .expect("the receiver waits");
            let heard = waiting.await.expect("it ends");
            assert_eq!(heard, Ok(7));
        };
        LocalSet::new().run_until(test).await;
    }
}
