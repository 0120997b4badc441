//! Simulates the faults.

use std::{any::Any, net, os::fd::AsFd as _, time::Duration};

use actix_web::{
    Error, HttpResponse, ResponseError as _,
    body::{BodyStream, BoxBody, EitherBody, MessageBody, to_bytes},
    dev::{Extensions, ServiceRequest, ServiceResponse},
    error::ErrorInternalServerError,
    http::{StatusCode, header},
    middleware::Next,
    rt::net::TcpStream,
    web,
};
use bytes::Bytes;
use futures_util::stream;

use super::{
    faults::{Endpoint, Misbehaviour},
    state::State,
};

/// The socket of a connection, kept to reset it.
struct Socket(net::TcpStream);

pub(super) fn keep_socket(connection: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Ok(socket) = stream.as_fd().try_clone_to_owned()
    {
        extensions.insert(Socket(socket.into()));
    }
}

pub(super) async fn misbehave<B: MessageBody + 'static>(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let how = record(&state, &request);
    let response = match how {
        None => return Ok(next.call(request).await?.map_into_left_body()),
        Some(Misbehaviour::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            return Ok(next.call(request).await?.map_into_left_body());
        }
        Some(Misbehaviour::Hang) => std::future::pending().await,
        Some(how @ (Misbehaviour::Reset | Misbehaviour::Close)) => {
            if let Some(Socket(socket)) = request.conn_data::<Socket>() {
                let how = if matches!(how, Misbehaviour::Reset) {
                    Some(Duration::ZERO)
                } else {
                    None
                };
                // A failure does not matter, because the response below also ends the connection.
                let socket = socket2::SockRef::from(socket);
                let _ = socket.set_linger(how);
                if how.is_none() {
                    let _ = socket.shutdown(net::Shutdown::Both);
                }
            }
            aborted(Bytes::new())
        }
        Some(Misbehaviour::BreakOff) => {
            let (request, body) = whole(request, next).await?;
            let start = body.slice(..body.len().min(40));
            return Ok(request.into_response(aborted(start)).map_into_right_body());
        }
        Some(Misbehaviour::Trickle(pace)) => {
            let (request, body) = whole(request, next).await?;
            let response = trickled(body, pace);
            return Ok(request.into_response(response).map_into_right_body());
        }
        Some(Misbehaviour::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = HttpResponse::build(status);
            if let Some(retry_after) = retry_after {
                response.insert_header((header::RETRY_AFTER, retry_after));
            }
            response.json(serde_json::json!({ "detail": "simulated failure" }))
        }
        Some(Misbehaviour::Refuse(kind)) => {
            let error = state.lock().scenario.error(kind, "simulated failure");
            error.error_response()
        }
        Some(Misbehaviour::Body(body)) => HttpResponse::Ok().body(body),
    };
    Ok(request.into_response(response).map_into_right_body())
}

/// Records a request, and returns how to misbehave on it.
fn record(state: &State, request: &ServiceRequest) -> Option<Misbehaviour> {
    let endpoint = Endpoint::of(request.method(), request.path())?;
    let now = state.clock.now();
    let mut memory = state.lock();
    if endpoint == Endpoint::Image {
        memory.reads.add(request, now);
    }
    if endpoint == Endpoint::Token {
        let headers = request.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        memory.last_headers = headers.collect();
    }
    memory.faults.ask(endpoint)
}

/// Serves a request, and returns the body of the response.
async fn whole<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<(ServiceRequest, Bytes), Error> {
    let (request, response) = next.call(request).await?.into_parts();
    let body = to_bytes(response.into_body()).await;
    let body = body.map_err(|error| ErrorInternalServerError(error.into()))?;
    Ok((ServiceRequest::from_request(request), body))
}

fn trickled(body: Bytes, pace: Duration) -> HttpResponse<BoxBody> {
    let bytes = body.into_iter();
    HttpResponse::Ok().streaming(stream::unfold(bytes, move |mut bytes| async move {
        let byte = bytes.next()?;
        tokio::time::sleep(pace).await;
        Some((Ok::<_, Error>(Bytes::from(vec![byte])), bytes))
    }))
}

/// A response that ends the connection after `start`.
fn aborted(start: Bytes) -> HttpResponse {
    let failure = ErrorInternalServerError("simulated failure");
    let chunks = (!start.is_empty()).then(|| Ok(start));
    let chunks = chunks.into_iter().chain([Err::<Bytes, Error>(failure)]);
    HttpResponse::Ok().body(BodyStream::new(stream::iter(chunks)))
}
