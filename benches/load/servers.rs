//! What stands around the contenders: an upstream that answers as Imgwire does, and a proxy without any
//! policy.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, http::header, rt, web};
use uuid::Uuid;

const ANSWER: &str = r#"{"id":"00000000-0000-4000-8000-000000000001","environment_id":"00000000-0000-4000-8000-000000000002","used_at":null,"expires_at":"2030-01-01T00:00:00Z","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","token":"ut_0123456789abcdef0123456789abcdef"}"#;

const TOKEN_PATH: &str = "/api/v1/images/token";

/// Where Imgwire creates uploads, below the URL of its API or the path of a route.
pub(crate) const UPLOAD_PATH: &str = "/api/v1/images/standard_upload";

/// An image, but for its id and its status.
const IMAGE: [&str; 3] = [
    r#"{"id":""#,
    r#"","environment_id":"00000000-0000-4000-8000-000000000002","upload_token_id":null,"original_filename":"me.png","hash_sha256":null,"status":""#,
    r#"","cdn_url":"https://cdn.example.com/00000000-0000-4000-8000-000000000001","mime_type":"image/png","can_upload":true,"is_directly_deliverable":false,"idempotency_key":"0123456789012345678901234567890123456789012","purpose":"avatar","extension":"png","width":0,"height":0,"size_bytes":48213,"custom_metadata":{"workspace":"ws_1"},"exif_data":{},"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","deleted_at":null,"processed_metadata_at":null}"#,
];

const UPLOAD_URL: &str = r#"https://storage.example.com/images/00000000-0000-4000-8000-000000000001?signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"#;

/// Answers every request with a token or an upload, after a delay. Under `/jwks` it is the issuer of keys, and says under
/// `/fetches` how often these were fetched.
pub(crate) fn upstream(arguments: &mut dyn Iterator<Item = String>) {
    let port = number(arguments) as u16;
    let delay = Duration::from_millis(number(arguments));
    let keys = std::env::var("BENCH_JWKS").unwrap_or_default();
    let fetches = web::Data::new(AtomicU32::new(0));
    let server = HttpServer::new(move || {
        let keys = keys.clone();
        let jwks = web::get().to(move |fetches: web::Data<AtomicU32>| {
            fetches.fetch_add(1, Ordering::Relaxed);
            std::future::ready(keys.clone())
        });
        let told = web::get()
            .to(async |fetches: web::Data<AtomicU32>| fetches.load(Ordering::Relaxed).to_string());
        App::new()
            .app_data(fetches.clone())
            .route("/jwks", jwks)
            .route("/fetches", told)
            .route("/v1/traces", web::post().to(HttpResponse::Ok))
            .route(
                UPLOAD_PATH,
                web::post().to(move |body| create_upload(delay, body)),
            )
            .route("/api/v1/images/{id}", web::get().to(show_image))
            .default_service(web::to(move || async move {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                HttpResponse::Ok()
                    .insert_header((header::CONTENT_TYPE, "application/json"))
                    .body(ANSWER)
            }))
    })
    .workers(2)
    .keep_alive(Duration::from_secs(5))
    .bind(("127.0.0.1", port))
    .expect("the port is free");
    rt::System::new()
        .block_on(server.run())
        .expect("the upstream runs");
}

/// It reads the body, because the server closes a connection whose request it did not read.
async fn create_upload(delay: Duration, _body: web::Bytes) -> HttpResponse {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let image = image(Uuid::from_u128(fastrand::u128(..)), "PENDING");
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(format!(
            r#"{{"image":{image},"upload_url":"{UPLOAD_URL}"}}"#
        ))
}

/// The file of every image has arrived.
async fn show_image(id: web::Path<Uuid>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .body(image(*id, "READY"))
}

fn image(id: Uuid, status: &str) -> String {
    let [start, middle, end] = IMAGE;
    format!("{start}{id}{middle}{status}{end}")
}

/// actix-web and awc, and nothing else: what the gate is compared with. It creates an upload for a request with a body, and
/// a token for any other.
pub(crate) fn bare(arguments: &mut dyn Iterator<Item = String>) {
    let port = number(arguments) as u16;
    let upstream = number(arguments);
    let server = HttpServer::new(move || {
        let connector = awc::Connector::new().limit(1024);
        let client = awc::Client::builder().connector(connector).finish();
        let upstream = format!("http://127.0.0.1:{upstream}");
        App::new()
            .app_data(web::Data::new((client, upstream)))
            .default_service(web::to(proxy))
    })
    .workers(2)
    .bind(("127.0.0.1", port))
    .expect("the port is free");
    rt::System::new()
        .block_on(server.run())
        .expect("the proxy runs");
}

async fn proxy(body: web::Bytes, state: web::Data<(awc::Client, String)>) -> HttpResponse {
    let (client, upstream) = state.get_ref();
    let post = |path: &str| {
        let authorization = (header::AUTHORIZATION, "Bearer sk_bench");
        let request = client.post(format!("{upstream}{path}"));
        request.insert_header(authorization)
    };
    let sent = if body.is_empty() {
        post(TOKEN_PATH).send()
    } else {
        post(UPLOAD_PATH)
            .content_type("application/json")
            .send_body(body)
    };
    let Ok(mut answer) = sent.await else {
        return HttpResponse::BadGateway().finish();
    };
    match answer.body().await {
        Ok(body) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .body(body),
        Err(_) => HttpResponse::BadGateway().finish(),
    }
}

fn number(arguments: &mut dyn Iterator<Item = String>) -> u64 {
    arguments
        .next()
        .and_then(|argument| argument.parse().ok())
        .expect("the arguments are numbers")
}
