//! CORS origins: which pages may upload with a Client Key.

use actix_web::http::header::{self, HeaderMap};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    errors::ApiError,
    ids::id,
    keys::Caller,
    scenario::{CorsOrigin, Scenario},
};

impl CorsOrigin {
    fn matches(&self, host: &str) -> bool {
        match self.pattern.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == self.pattern,
        }
    }
}

impl Scenario {
    fn origins_of<'a>(&'a self, environment: &'a str) -> impl Iterator<Item = &'a CorsOrigin> {
        let origins = self.cors_origins.iter();
        origins.filter(move |origin| origin.environment == environment)
    }

    /// Uploads with a Server API Key, and environments without origins, have no restriction.
    pub(super) fn check_origin(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(), ApiError> {
        let mut origins = self.origins_of(&caller.environment).peekable();
        if caller.client.is_none() || origins.peek().is_none() {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN);
        let host = origin.and_then(|origin| origin.to_str().ok()?.split_once("://"));
        let is_allowed = match (origin, host) {
            (None, _) => !self.undocumented.origin_required,
            (Some(_), None) => false,
            (Some(_), Some((_, host))) => origins.any(|origin| origin.matches(host)),
        };
        if is_allowed {
            return Ok(());
        }
        let detail = "The origin is not one of the CORS origins of the environment";
        Err(self.error(self.undocumented.limit_error, detail))
    }

    /// The entries of the list of CORS origins.
    pub(super) fn origin_entries(&self, environment: &str, now: Timestamp) -> Vec<Value> {
        let entries = self.origins_of(environment).enumerate();
        let entries = entries.map(|(index, origin)| {
            json!({
                "id": id(3, index + 1),
                "environment_id": environment,
                "pattern": origin.pattern,
                "created_at": now,
                "updated_at": now,
            })
        });
        entries.collect()
    }
}
