//! Switches the scenario over HTTP, for commands in a shell and for tests of other programs.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde_json::{Value, json};

use super::{errors::ApiError, scenario::Scenario, state::State};
use crate::http::host;

const PATH: &str = "/emulator";

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config.service(
        web::resource(PATH)
            .route(web::get().to(show))
            .route(web::patch().to(change)),
    );
}

async fn show(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    refuse_pages(&request)?;
    Ok(HttpResponse::Ok().json(&state.lock().scenario))
}

/// Merges the objects of the body into those of the scenario.
async fn change(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    refuse_pages(&request)?;
    let invalid = |error: serde_json::Error| ApiError::plain(400, &error.to_string());
    let patch: Value = serde_json::from_slice(&body).map_err(invalid)?;
    let mut memory = state.lock();
    let mut merged = json!(memory.scenario);
    merge(&mut merged, patch);
    let scenario: Scenario = serde_json::from_value(merged).map_err(invalid)?;
    memory.scenario = scenario;
    Ok(HttpResponse::Ok().json(&memory.scenario))
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

/// Browsers send `Origin` with every PATCH. `Host` shows DNS rebinding.
fn refuse_pages(request: &HttpRequest) -> Result<(), ApiError> {
    let headers = request.headers();
    let is_own = host::check(headers, request.uri(), &[]).is_ok();
    if is_own && !headers.contains_key(header::ORIGIN) {
        Ok(())
    } else {
        Err(ApiError::plain(403, "Pages cannot switch the emulator"))
    }
}
