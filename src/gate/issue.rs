//! Issues a token: evaluates the chain, creates the token, and settles the reservations. The work finishes even if the
//! request that waits for it is dropped.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::rt;
use futures_util::{FutureExt as _, future::CatchUnwind};
use policies::{Clock, Facts, Pass, Permit, TokenId, Tolerated, UploadRequest};

use super::{
    imgwire_call::in_span,
    outcome::{Details, Failure, Report, Success},
    rules::{Action, Route},
};
use crate::{
    imgwire::{Client, TraceContext, UploadToken},
    stores::{FileFacts, Origin, RecordId},
};

/// Issues a token if every policy of the route allows the request. All reservations are settled when this returns, so it
/// must `run_to_completion` even if the client disconnects.
pub async fn issue(
    route: &Route,
    client: &Rc<Client>,
    clock: &dyn Clock,
    request: &UploadRequest,
    context: &TraceContext,
) -> Report {
    let mut details = Details::default();
    let evaluated = details.evaluate(&route.chain, request, Pass::Issue, clock);
    let outcome = match evaluated.await {
        Ok(permit) => {
            let creating = in_span("create upload token", context, async |context| {
                client.token(context).await
            });
            let creation = creating.await;
            details.add_call(&creation);
            let created = match creation.result {
                Ok(token) => record(route, request, &details.facts, clock, context, token).await,
                Err(error) => Err(Failure::ImgwireFailed(error)),
            };
            settle(permit, created, &mut details.tolerated).await
        }
        Err(failure) => Err(failure),
    };
    Report { outcome, details }
}

/// Records whose token it is, if the route has a store.
async fn record(
    route: &Route,
    request: &UploadRequest,
    facts: &Facts,
    clock: &dyn Clock,
    context: &TraceContext,
    token: UploadToken,
) -> Result<UploadToken, Failure> {
    let Action::Token(Some(records)) = &route.action else {
        return Ok(token);
    };
    let subject = facts.subject.as_ref();
    let id = token.id.as_deref().and_then(TokenId::parse);
    let (Some(subject), Some(id)) = (subject, id) else {
        let (request_id, route) = (context.request_id.as_str(), route.path.as_str());
        tracing::warn!(
            request_id,
            route,
            "upload token without an id or a user is not recorded"
        );
        return Ok(token);
    };
    let file = request.file.as_ref();
    let membership = facts.membership.as_ref();
    let (record, now) = RecordId::new(clock);
    let origin = Origin {
        subject: subject.id.clone(),
        workspace: membership.map(|membership| membership.workspace.clone()),
        route: route.path.clone(),
        purpose: request.purpose.clone().or_else(|| route.purpose.clone()),
        declared: FileFacts {
            mime_type: file.and_then(|file| file.mime_type.clone()),
            size: file.and_then(|file| file.size),
        },
        created_at: now,
    };
    let recorded = records.issued(record, origin, id).await;
    recorded.map_err(Failure::Unrecorded).map(|()| token)
}

async fn settle(
    permit: Permit,
    created: Result<UploadToken, Failure>,
    tolerated: &mut Vec<Tolerated>,
) -> Result<Success, Failure> {
    match created {
        Ok(token) => match permit.issued().await {
            Ok(faults) => {
                tolerated.extend(faults);
                Ok(Success::Issued(token))
            }
            Err((policy, fault)) => Err(Failure::Faulted(policy, fault)),
        },
        Err(failure) => {
            tolerated.extend(permit.not_issued().await);
            Err(failure)
        }
    }
}

/// Runs `work` to completion. If the returned future is dropped, as happens when a client disconnects, the rest of the
/// work continues in a background task. Drop it only on a thread that runs actix tasks.
///
/// Until it is dropped, the work runs inside the task that awaits it. `rt::spawn(work).await` would be plainer, but then
/// the work and the response wait behind all pending reads: with a durable quota that cost 5 % of the requests.
pub(crate) fn run_to_completion<F: Future + 'static>(work: F) -> RunToCompletion<F> {
    RunToCompletion {
        work: Some(Box::pin(AssertUnwindSafe(work).catch_unwind())),
    }
}

/// Resolves to the output of the work, or to its panic payload.
#[must_use]
pub(crate) struct RunToCompletion<F: Future + 'static> {
    /// `None` when the work is done.
    work: Option<Pin<Box<CatchUnwind<AssertUnwindSafe<F>>>>>,
}

impl<F: Future> Future for RunToCompletion<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = self
            .work
            .as_mut()
            .expect("a finished future is not polled again");
        let result = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<F: Future> Drop for RunToCompletion<F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            rt::spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, task::LocalSet};

    use super::*;

    #[tokio::test]
    async fn dropped_work_finishes_in_the_background() {
        let test = async {
            let (resume, resumed) = oneshot::channel();
            let (finish, finished) = oneshot::channel();
            let mut work = run_to_completion(async move {
                resumed.await.expect("the test resumes the work");
                finish.send(()).expect("the test waits for the work");
            });
            assert!(futures_util::poll!(&mut work).is_pending());
            drop(work);
            resume.send(()).expect("the work still waits");
            finished.await.expect("the work finishes");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn work_that_never_started_is_also_done() {
        let test = async {
            let (finish, finished) = oneshot::channel();
            drop(run_to_completion(async move { finish.send(()) }));
            finished.await.expect("the work finishes");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_panic_is_returned_to_the_caller() {
        let result = run_to_completion(async { panic!("on purpose") }).await;
        let payload = result.expect_err("the work panics");
        assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    }

    #[tokio::test]
    async fn finished_work_does_not_run_again() {
        // There is no runtime for local tasks here, so a drop that spawned one would panic.
        let mut work = run_to_completion(async { 7 });
        assert_eq!((&mut work).await.ok(), Some(7));
        drop(work);
    }
}
