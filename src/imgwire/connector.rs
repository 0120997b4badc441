//! Connects to Imgwire, and tells each attempt whether its connection is a fresh one.

use std::cell::Cell;

use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use futures_util::future::LocalBoxFuture;

type Uri = actix_web::http::Uri;

tokio::task_local! {
    /// Whether the running attempt opened a connection.
    static OPENED: Cell<bool>;
}

/// Runs one attempt, and says whether it opened a connection of its own rather than taking a kept one.
pub(super) async fn noting_connection<F: Future>(attempt: F) -> (F::Output, bool) {
    OPENED
        .scope(Cell::new(false), async {
            let output = attempt.await;
            (output, OPENED.with(Cell::get))
        })
        .await
}

/// A connector that notes that it was asked: the pool asks it only when it has no connection kept.
#[derive(Clone)]
pub(super) struct NotingConnector<S> {
    pub(super) tcp: S,
}

impl<S, Io> Service<ConnectInfo<Uri>> for NotingConnector<S>
where
    S: Service<ConnectInfo<Uri>, Response = Connection<Uri, Io>, Error = ConnectError>,
    S::Future: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    actix_service::forward_ready!(tcp);

    fn call(&self, request: ConnectInfo<Uri>) -> Self::Future {
        let connecting = self.tcp.call(request);
        Box::pin(async move {
            // Outside of an attempt there is nobody to tell.
            let _ = OPENED.try_with(|opened| opened.set(true));
            connecting.await
        })
    }
}
