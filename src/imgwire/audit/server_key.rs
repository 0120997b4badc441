//! The base URL, the clock, the Server API Key, billing and the environment.

use std::fmt::Display;

use actix_web::http::{Method, StatusCode};

use super::{
    API_KEY, Audit, BASE_URL, BILLING, CLOCK, ENVIRONMENT, IMAGES, Key,
    response::{Response, is_plain},
};
use crate::{imgwire::error_body::ErrorKind, outbound::HttpError, telemetry::Point};

const TRY_LATER: &str = "run it again later; if it persists, ask Imgwire for a higher rate";

impl Audit<'_> {
    pub(super) fn base_url(listed: Result<&Response, &HttpError>) -> Point {
        const REMEDY: &str = "correct `base_url` in [imgwire], which is https://api.imgwire.dev by default; it has no path";

        let failed = |message: String| Point::failed(BASE_URL, message, REMEDY);
        let response = match listed {
            Ok(response) => response,
            Err(error) => {
                return Point::failed(
                    BASE_URL,
                    format!("cannot reach Imgwire: {error}"),
                    "correct `base_url` in [imgwire]; if it is right, check the network to it and `[outbound] ca`",
                );
            }
        };
        let status = response.status.as_u16();
        match status {
            300..=399 => failed(format!(
                "a redirect is there instead of Imgwire's API (status {status})"
            )),
            _ if response.is_web_page() => failed(format!(
                "a web page is there instead of Imgwire's API (status {status})"
            )),
            200..=299 if response.json().is_some_and(|body| body.is_array()) => {
                Point::ok(BASE_URL, "Imgwire responds")
            }
            429 => Point::unknown(
                BASE_URL,
                "Imgwire limits the rate of this key (status 429)",
                TRY_LATER,
            ),
            500..=599 => Point::failed(
                BASE_URL,
                format!("Imgwire responds with an error ({})", response.describe()),
                "look at Imgwire's status page, and run it again; if it persists, correct `base_url` in [imgwire]",
            ),
            _ if response.refusal().is_some() => Point::ok(BASE_URL, "Imgwire responds"),
            401..=403 => Point::unknown(
                BASE_URL,
                format!(
                    "the answer is not an error in Imgwire's published format (status {status})"
                ),
                REMEDY,
            ),
            _ => failed(format!("Imgwire's API is not there (status {status})")),
        }
    }

    pub(super) fn clock(listed: &Response) -> Point {
        match listed.skew {
            Some(skew) => Point::clock(CLOCK, skew),
            None => Point::unknown(
                CLOCK,
                "Imgwire's response has no `Date`",
                "compare the clock of this machine with another one, for example by NTP",
            ),
        }
    }

    pub(super) fn api_key(&self, listed: &Response) -> Point {
        const REMEDY: &str = "create a Server API Key (sk_...) in Imgwire's dashboard, and put it where `api_key` reads it";

        let Some(refusal) = listed.refusal() else {
            return Point::ok(API_KEY, "the Server API Key works");
        };
        let reason = listed.describe();
        let of_environment = match &self.settings.environment_id {
            Some(id) => format!(
                "correct `environment_id`, which is `{}`, or use a Server API Key of that environment",
                id.as_str()
            ),
            None => "set `environment_id`, or use a Server API Key of the environment of your app"
                .to_owned(),
        };
        match refusal {
            ErrorKind::InvalidToken => Point::failed(
                API_KEY,
                format!("Imgwire does not accept the key, which is revoked or mistyped ({reason})"),
                REMEDY,
            ),
            ErrorKind::OperationNotAllowed => Point::failed(
                API_KEY,
                format!("the key may not list images, so it is not a Server API Key ({reason})"),
                REMEDY,
            ),
            ErrorKind::PaymentRequired => {
                Point::ok(API_KEY, format!("Imgwire accepts the key ({reason})"))
            }
            ErrorKind::ResourceNotAuthorized => Point::unknown(
                API_KEY,
                format!("the key may be one of another environment ({reason})"),
                of_environment,
            ),
            ErrorKind::ResourceNotFound | ErrorKind::Validation | ErrorKind::Other => {
                Point::unknown(
                    API_KEY,
                    format!("the answer does not tell whether the key works ({reason})"),
                    of_environment,
                )
            }
        }
    }

    /// Creates a token, which shows whether billing is active and to which environment the key belongs.
    pub(super) async fn token(&self) -> Vec<Point> {
        let path = format!("{IMAGES}token");
        // A surplus token does no harm.
        let created = match self.call_with_retry(Method::POST, &path, Key::Server).await {
            Ok(created) => created,
            Err(error) => return vec![no_token(error)],
        };
        if created.status == StatusCode::TOO_MANY_REQUESTS {
            return vec![Point::unknown(
                BILLING,
                format!(
                    "Imgwire limits the rate of this key, and created no upload token ({})",
                    created.describe()
                ),
                TRY_LATER,
            )];
        }
        if let Some(refusal) = created.refusal() {
            let reason = created.describe();
            return vec![match refusal {
                ErrorKind::PaymentRequired => Point::failed(
                    BILLING,
                    format!(
                        "Imgwire creates no upload token until the plan is paid or extended ({reason})"
                    ),
                    "open Billing in Imgwire's dashboard: pay the subscription, raise the plan, or free storage",
                ),
                _ => no_token(reason),
            }];
        }
        let body = created.json().unwrap_or_default();
        let has_token = body["token"]
            .as_str()
            .is_some_and(|token| !token.is_empty());
        if !created.status.is_success() || !has_token {
            return vec![no_token(created.describe())];
        }
        let environment = body["environment_id"].as_str().filter(|id| is_plain(id));
        let place = environment.map_or_else(String::new, |id| format!(" in the environment {id}"));
        let billing = Point::ok(
            BILLING,
            format!("Imgwire created an upload token{place}, which expires unused"),
        );
        let Some(wanted) = &self.settings.environment_id else {
            return vec![billing];
        };
        let environment = match environment {
            Some(id) if id.eq_ignore_ascii_case(wanted.as_str()) => {
                Point::ok(ENVIRONMENT, "tokens are created in this environment")
            }
            Some(_) => Point::failed(
                ENVIRONMENT,
                "Imgwire creates tokens in another environment, to which the Server API Key belongs",
                "correct `environment_id`, or use a Server API Key of that environment",
            ),
            None => Point::unknown(
                ENVIRONMENT,
                "Imgwire does not say in which environment it creates tokens",
                "compare `environment_id` with the environment of the key in Imgwire's dashboard",
            ),
        };
        vec![billing, environment]
    }
}

fn no_token(reason: impl Display) -> Point {
    Point::failed(
        BILLING,
        format!("Imgwire creates no upload token ({reason})"),
        "look at the Server API Key, its environment and Billing in Imgwire's dashboard, and at Imgwire's status page",
    )
}
