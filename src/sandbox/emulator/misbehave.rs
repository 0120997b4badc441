//! Faults that the emulator simulates.

use std::{any::Any, net, os::fd::AsFd as _, time::Duration};

use actix_web::{
    Error, HttpResponse,
    body::{BodyStream, EitherBody, MessageBody},
    dev::{Extensions, ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    rt::net::TcpStream,
    web,
};
use bytes::Bytes;
use futures_util::stream;

use super::{
    api::TOKEN_PATH,
    state::{Misbehaviour, State},
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
    let how = if request.path() == TOKEN_PATH {
        state.ask(request.headers())
    } else {
        None
    };
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
            aborted(String::new())
        }
        Some(Misbehaviour::BreakOff) => aborted(state.create_token().to_string()[..40].to_owned()),
        Some(Misbehaviour::Trickle(pace)) => {
            let bytes = state.create_token().to_string().into_bytes().into_iter();
            HttpResponse::Ok().streaming(stream::unfold(bytes, move |mut bytes| async move {
                let byte = bytes.next()?;
                tokio::time::sleep(pace).await;
                Some((Ok::<_, Error>(Bytes::from(vec![byte])), bytes))
            }))
        }
        Some(Misbehaviour::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = HttpResponse::build(status);
            if let Some(retry_after) = retry_after {
                response.insert_header((header::RETRY_AFTER, retry_after));
            }
            response.json(serde_json::json!({ "detail": "simulated failure" }))
        }
        Some(Misbehaviour::Body(body)) => HttpResponse::Ok().body(body),
    };
    Ok(request.into_response(response).map_into_right_body())
}

/// A response that ends the connection after `start`.
fn aborted(start: String) -> HttpResponse {
    let failure = actix_web::error::ErrorInternalServerError("simulated failure");
    let chunks = (!start.is_empty()).then(|| Ok(Bytes::from(start)));
    let chunks = chunks.into_iter().chain([Err::<Bytes, Error>(failure)]);
    HttpResponse::Ok().body(BodyStream::new(stream::iter(chunks)))
}
