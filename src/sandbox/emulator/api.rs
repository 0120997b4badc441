//! The HTTP API of the emulator.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::State;

pub const SERVER_API_KEY: &str = "sk_emulator";

pub const CLIENT_KEY: &str = "ck_emulator";

pub(super) const TOKEN_PATH: &str = "/api/v1/images/token";

const MAX_UPLOAD_BYTES: usize = 100 << 20;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(MAX_UPLOAD_BYTES))
        .route(
            "/health",
            web::get().to(async || HttpResponse::Ok().json(json!({ "status": "ok" }))),
        )
        .route(TOKEN_PATH, web::post().to(create_token))
        .route(
            "/api/v1/images/standard_upload",
            web::post().to(standard_upload),
        )
        .route("/api/v1/images/", web::get().to(list))
        .route("/api/v1/images/{id}", web::get().to(show))
        .route("/upload/{id}", web::put().to(put))
        .route("/cdn/{id}", web::get().to(deliver))
        .default_service(web::to(async || detail(404, "Not Found")));
}

fn detail(status: u16, message: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap_or_default();
    HttpResponse::build(status).json(json!({ "detail": message }))
}

/// A validation error in the published format.
fn invalid(location: &[&str], message: &str, kind: &str) -> HttpResponse {
    HttpResponse::UnprocessableEntity()
        .json(json!({ "detail": [{ "loc": location, "msg": message, "type": kind }] }))
}

fn has_key(request: &HttpRequest, key: &str) -> bool {
    let authorization = request.headers().get(header::AUTHORIZATION);
    authorization.is_some_and(|value| value.as_bytes() == format!("Bearer {key}").as_bytes())
}

async fn create_token(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    if !has_key(&request, SERVER_API_KEY) {
        return detail(401, "Invalid API key");
    }
    HttpResponse::Ok().json(state.create_token())
}

#[derive(Deserialize)]
struct UploadQuery {
    upload_token: Option<String>,
}

async fn standard_upload(
    request: HttpRequest,
    query: web::Query<UploadQuery>,
    body: web::Bytes,
    state: web::Data<State>,
) -> HttpResponse {
    if !has_key(&request, CLIENT_KEY) {
        return detail(401, "Invalid API key");
    }
    let Some(token) = &query.upload_token else {
        return invalid(&["query", "upload_token"], "Field required", "missing");
    };
    let upload: Value = match serde_json::from_slice(&body) {
        Ok(upload) => upload,
        Err(_) => return invalid(&["body"], "JSON decode error", "json_invalid"),
    };
    if !upload["file_name"].is_string() {
        return invalid(&["body", "file_name"], "Field required", "missing");
    }
    match state.start_upload(token, &upload) {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(refusal) => detail(403, refusal),
    }
}

async fn deliver(path: web::Path<String>, state: web::Data<State>) -> HttpResponse {
    match state.image_bytes(&path) {
        Some((kind, bytes)) => HttpResponse::Ok().content_type(kind).body(bytes),
        None => detail(404, "Not Found"),
    }
}

async fn put(path: web::Path<String>, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    if state.put(&path, body) {
        HttpResponse::Ok().finish()
    } else {
        detail(404, "Not Found")
    }
}

async fn show(path: web::Path<String>, state: web::Data<State>) -> HttpResponse {
    let image = state.image(&path);
    image.map_or_else(
        || detail(404, "Image not found"),
        |image| HttpResponse::Ok().json(image),
    )
}

#[derive(Deserialize)]
struct Paging {
    page: Option<usize>,
    limit: Option<usize>,
}

async fn list(
    request: HttpRequest,
    paging: web::Query<Paging>,
    state: web::Data<State>,
) -> HttpResponse {
    if !has_key(&request, SERVER_API_KEY) {
        return detail(401, "Invalid API key");
    }
    let (page, limit) = (paging.page.unwrap_or(1), paging.limit.unwrap_or(25));
    HttpResponse::Ok().json(state.images(page, limit))
}
