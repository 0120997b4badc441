//! The CORS origins of the environment.

use actix_web::http::Method;
use serde_json::Value;

use super::{
    Audit, CORS_ORIGINS, Key,
    origins::{ANY, Coverage, coverage},
};
use crate::telemetry::Point;

/// How many pages of CORS origins are read, of a hundred each.
const MAX_PAGES: u32 = 10;

/// How many origins a message names.
const MAX_NAMED: usize = 10;

impl Audit<'_> {
    /// Reads the host patterns of the environment.
    pub(super) async fn cors_origins(&self) -> Result<Vec<String>, String> {
        let mut patterns = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("/api/v1/cors_origins/?page={page}&limit=100");
            let listed = self.call_with_retry(Method::GET, &path, Key::Server).await;
            let listed = listed.map_err(|error| error.to_string())?;
            let entries = match listed.json() {
                Some(Value::Array(entries)) if listed.status.is_success() => entries,
                _ => return Err(listed.describe()),
            };
            for entry in entries {
                let pattern = entry["pattern"].as_str().ok_or("an entry has no pattern")?;
                patterns.push(pattern.to_owned());
            }
            let next = listed.headers.get("x-next-page");
            let next = next.and_then(|next| next.to_str().ok()?.trim().parse().ok());
            if next != Some(page + 1) {
                break;
            }
        }
        Ok(patterns)
    }

    pub(super) fn cors_point(&self, patterns: &[String]) -> Point {
        if patterns.is_empty() {
            return Point::failed(
                CORS_ORIGINS,
                "the environment has no CORS origins, so every website can upload with the Client Key",
                "add the hosts of your pages under CORS Origins of the environment in Imgwire's dashboard",
            );
        }
        let named = |wanted| {
            let origins = self.allowed_origins.iter();
            let found = origins.filter(|origin| coverage(origin, patterns) == wanted);
            let mut found: Vec<_> = found.map(|origin| origin.as_origin().to_string()).collect();
            if found.len() > MAX_NAMED {
                found.truncate(MAX_NAMED);
                found.push("...".to_owned());
            }
            (!found.is_empty()).then(|| found.join(", "))
        };
        if let Some(refused) = named(Coverage::NotCovered) {
            return Point::failed(
                CORS_ORIGINS,
                format!(
                    "Imgwire refuses uploads from these origins of `allowed_origins`: {refused}"
                ),
                "add their hosts under CORS Origins of the environment in Imgwire's dashboard, or remove them from \
                 `allowed_origins` in [server]",
            );
        }
        if let Some(unclear) = named(Coverage::Unclear) {
            return Point::unknown(
                CORS_ORIGINS,
                format!(
                    "it is not documented whether Imgwire's patterns match these origins: {unclear}"
                ),
                "add their hosts, with the port if there is one, under CORS Origins in Imgwire's dashboard",
            );
        }
        if patterns.iter().any(|pattern| pattern.trim() == ANY) {
            return Point::warning(
                CORS_ORIGINS,
                "the CORS origin `*` lets every website upload with the Client Key",
                "replace `*` by the hosts of your pages under CORS Origins in Imgwire's dashboard",
            );
        }
        let (set, allowed) = (patterns.len(), self.allowed_origins.len());
        Point::ok(
            CORS_ORIGINS,
            match allowed {
                0 => format!("{set} set; the gate has no `allowed_origins` to compare"),
                _ => format!("{set} set; they cover all `allowed_origins` ({allowed})"),
            },
        )
    }
}
