//! The HTTP API of the emulator.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    errors::{ApiError, Problem},
    faults::{
        BULK_DELETE_PATH, CORS_ORIGINS_PATH, IMAGES_PATH, PUT_PREFIX, TOKEN_PATH, UPLOAD_PATH,
    },
    state::State,
};

const MAX_UPLOAD_BYTES: usize = 100 << 20;

/// Of any other request. Images keep what the request for their upload says.
const MAX_BODY_BYTES: usize = 16 << 10;

type Answer = Result<HttpResponse, ApiError>;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    let with_id = |prefix: &str| format!("{prefix}{{id}}");
    config
        .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
        .route("/health", web::get().to(health))
        .route(TOKEN_PATH, web::post().to(create_token))
        .route(UPLOAD_PATH, web::post().to(create_upload))
        .route(BULK_DELETE_PATH, web::post().to(bulk_delete))
        .route(IMAGES_PATH, web::get().to(list))
        .route(&with_id(IMAGES_PATH), web::get().to(show))
        .route(&with_id(IMAGES_PATH), web::delete().to(delete))
        .route(CORS_ORIGINS_PATH, web::get().to(cors_origins))
        .service(
            web::resource(with_id(PUT_PREFIX))
                .app_data(web::PayloadConfig::new(MAX_UPLOAD_BYTES))
                .route(web::put().to(put)),
        )
        .route("/cdn/{id}", web::get().to(deliver))
        .default_service(web::to(async || {
            Err::<HttpResponse, _>(ApiError::plain(404, "Not Found"))
        }));
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

async fn create_token(request: HttpRequest, state: web::Data<State>) -> Answer {
    Ok(HttpResponse::Ok().json(state.create_token(request.headers())?))
}

#[derive(Deserialize)]
struct UploadQuery {
    upload_token: Option<String>,
}

async fn create_upload(
    request: HttpRequest,
    query: web::Query<UploadQuery>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Answer {
    let token = query.upload_token.as_deref();
    Ok(HttpResponse::Ok().json(state.create_upload(request.headers(), token, &body)?))
}

#[derive(Deserialize)]
struct PutQuery {
    expires: Option<i64>,
}

async fn put(
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<PutQuery>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Answer {
    let mime_type = request.headers().get(header::CONTENT_TYPE);
    let mime_type = mime_type.and_then(|value| value.to_str().ok());
    match state.put(&path, query.expires, mime_type, body) {
        Ok(()) => Ok(HttpResponse::Ok().finish()),
        Err(status) => Err(ApiError::plain(status, "The upload is not accepted")),
    }
}

async fn show(request: HttpRequest, id: web::Path<String>, state: web::Data<State>) -> Answer {
    check_id(&id)?;
    Ok(HttpResponse::Ok().json(state.image(request.headers(), &id)?))
}

async fn delete(request: HttpRequest, id: web::Path<String>, state: web::Data<State>) -> Answer {
    check_id(&id)?;
    state.delete(request.headers(), &id)?;
    Ok(HttpResponse::Ok().json(json!({ "status": "deleted" })))
}

async fn bulk_delete(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> Answer {
    let results = state.bulk_delete(request.headers(), || image_ids(&body))?;
    Ok(HttpResponse::Ok().json(results))
}

async fn list(request: HttpRequest, state: web::Data<State>) -> Answer {
    let images = state.images(request.headers())?;
    paginated(&request, images)
}

async fn cors_origins(request: HttpRequest, state: web::Data<State>) -> Answer {
    let origins = state.cors_origins(request.headers())?;
    paginated(&request, origins)
}

async fn deliver(id: web::Path<String>, state: web::Data<State>) -> Answer {
    let image = state.delivered(&id);
    let (mime_type, bytes) = image.ok_or_else(|| ApiError::plain(404, "Not Found"))?;
    Ok(HttpResponse::Ok().content_type(mime_type).body(bytes))
}

fn check_id(id: &str) -> Result<(), ApiError> {
    let message = "Input should be a valid UUID";
    let problem = || Problem::new("path", "image_id", message, "uuid_parsing");
    let parsed = Uuid::parse_str(id);
    parsed.map_or_else(|_| Err(ApiError::invalid(&[problem()])), |_| Ok(()))
}

fn image_ids(body: &[u8]) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        image_ids: Vec<String>,
    }

    let is_uuid = |id: &String| Uuid::parse_str(id).is_ok();
    match serde_json::from_slice(body) {
        Ok(Body { image_ids }) if !image_ids.is_empty() && image_ids.iter().all(is_uuid) => {
            Ok(image_ids)
        }
        _ => {
            let message = "Input should be a list of at least one UUID";
            let problem = Problem::new("body", "image_ids", message, "uuid_parsing");
            Err(ApiError::invalid(&[problem]))
        }
    }
}

/// The page of `items` that the query names.
fn paginated(request: &HttpRequest, items: Vec<Value>) -> Answer {
    let query = web::Query::<HashMap<String, String>>::from_query(request.query_string());
    let query = query.map(web::Query::into_inner).unwrap_or_default();
    let number = |name: &str, default: usize, largest: usize| {
        let number = query
            .get(name)
            .map_or(Some(default), |text| text.parse().ok());
        number
            .filter(|number| (1..=largest).contains(number))
            .ok_or_else(|| {
                let message = "Input should be an integer within the limits";
                ApiError::invalid(&[Problem::new("query", name, message, "int_parsing")])
            })
    };
    let page = number("page", 1, usize::MAX)?;
    let limit = number("limit", 20, 100)?;
    let total = items.len();
    let first = (page - 1).saturating_mul(limit);
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("x-total-count", total))
        .insert_header(("x-page", page))
        .insert_header(("x-limit", limit));
    if page > 1 {
        response.insert_header(("x-prev-page", page - 1));
    }
    if first.saturating_add(limit) < total {
        response.insert_header(("x-next-page", page + 1));
    }
    let items: Vec<_> = items.into_iter().skip(first).take(limit).collect();
    Ok(response.json(items))
}
