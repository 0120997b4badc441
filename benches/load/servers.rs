//! What stands around the contenders: an upstream that answers as Imgwire does, and a proxy without any
//! policy.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, http::header, rt, web};

const ANSWER: &str = r#"{"id":"00000000-0000-4000-8000-000000000001","environment_id":"00000000-0000-4000-8000-000000000002","used_at":null,"expires_at":"2030-01-01T00:00:00Z","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","token":"ut_0123456789abcdef0123456789abcdef"}"#;

/// Answers every request with a token, after a delay; under `/jwks` it is the issuer of keys, and tells under
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

/// actix-web and awc, and nothing else: what the gate is compared with.
pub(crate) fn bare(arguments: &mut dyn Iterator<Item = String>) {
    let port = number(arguments) as u16;
    let upstream = number(arguments);
    let server = HttpServer::new(move || {
        let connector = awc::Connector::new().limit(1024);
        let client = awc::Client::builder().connector(connector).finish();
        let url = format!("http://127.0.0.1:{upstream}/api/v1/images/token");
        App::new()
            .app_data(web::Data::new((client, url)))
            .default_service(web::to(
                |state: web::Data<(awc::Client, String)>| async move {
                    let (client, url) = state.get_ref();
                    let request = client
                        .post(url)
                        .insert_header((header::AUTHORIZATION, "Bearer sk_bench"));
                    let Ok(mut answer) = request.send().await else {
                        return HttpResponse::BadGateway().finish();
                    };
                    match answer.body().await {
                        Ok(body) => HttpResponse::Ok()
                            .insert_header((header::CONTENT_TYPE, "application/json"))
                            .body(body),
                        Err(_) => HttpResponse::BadGateway().finish(),
                    }
                },
            ))
    })
    .workers(2)
    .bind(("127.0.0.1", port))
    .expect("the port is free");
    rt::System::new()
        .block_on(server.run())
        .expect("the proxy runs");
}

fn number(arguments: &mut dyn Iterator<Item = String>) -> u64 {
    arguments
        .next()
        .and_then(|argument| argument.parse().ok())
        .expect("the arguments are numbers")
}
