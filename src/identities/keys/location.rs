//! Where an issuer publishes its key set: at a URL, or where OpenID Connect Discovery says.

use std::time::Duration;

use crate::{
    config::ServiceUrl,
    outbound::{HttpClient, InvalidResponse, JsonObject, OutboundRequest, Resend},
};
use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderMap},
};
use bytes::Bytes;

/// How long a set is fresh where the issuer says nothing.
const USUAL_AGE: Duration = Duration::from_secs(15 * 60);

/// The bounds of what the issuer may say.
pub(super) const LEAST_AGE: Duration = Duration::from_secs(60);
const GREATEST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a fetch may take, and how long an answer may be.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Where an issuer publishes its key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// Under this URL.
    Jwks(ServiceUrl),
    /// Where the issuer's discovery document says.
    Discovery {
        /// The issuer, which the document must name, too.
        issuer: String,
        /// Whether plain http to other machines is allowed.
        insecure_http: bool,
    },
}

/// Where a key set is fetched from.
pub(super) struct KeySetSource {
    location: Location,
    http: HttpClient,
}

impl KeySetSource {
    /// Fetches nothing yet.
    #[must_use]
    pub(super) const fn new(location: Location, http: HttpClient) -> Self {
        Self { location, http }
    }

    pub(super) fn is_at(&self, location: &Location) -> bool {
        self.location == *location
    }

    /// Fetches the set's text, and says how long it is fresh. `jwks_url` remembers what discovery found, until
    /// a fetch fails.
    pub(super) async fn fetch(
        &self,
        jwks_url: &mut Option<ServiceUrl>,
    ) -> Result<(Bytes, Duration), String> {
        let url = match (jwks_url.take(), &self.location) {
            (Some(url), _) => url,
            (None, Location::Jwks(url)) => url.clone(),
            (
                None,
                Location::Discovery {
                    issuer,
                    insecure_http,
                },
            ) => self.discover(issuer, *insecure_http).await?,
        };
        let (text, headers) = self.get(url.as_str()).await?;
        *jwks_url = Some(url);
        Ok((text, freshness(&headers)))
    }

    /// Reads the issuer's metadata (OpenID Connect Discovery 1.0, 4).
    async fn discover(&self, issuer: &str, insecure_http: bool) -> Result<ServiceUrl, String> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let url = format!("{base}/.well-known/openid-configuration");
        let (text, _) = self.get(&url).await?;
        let unusable = |error: InvalidResponse| format!("{url}: {error}");
        let mut metadata = JsonObject::parse(&text).map_err(unusable)?;
        if metadata.take_string("issuer").map_err(unusable)? != issuer {
            return Err("the discovery document names another issuer".to_owned());
        }
        let url = ServiceUrl::try_from(metadata.take_string("jwks_uri").map_err(unusable)?)
            .map_err(|fault| format!("the discovery document's `jwks_uri` {fault}"))?;
        if url.is_private() || insecure_http {
            Ok(url)
        } else {
            Err("the discovery document's `jwks_uri` is not https".to_owned())
        }
    }

    async fn get(&self, url: &str) -> Result<(Bytes, HeaderMap), String> {
        let answer = self
            .http
            .send(OutboundRequest {
                method: Method::GET,
                url,
                headers: Vec::new(),
                body: Bytes::new(),
                timeout: TIMEOUT,
                max_response_bytes: MAX_ANSWER_BYTES,
                resend: Resend::Safe,
            })
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        if answer.status == StatusCode::OK {
            Ok((answer.body, answer.headers))
        } else {
            Err(format!("{url}: the status is {}", answer.status.as_u16()))
        }
    }
}

/// How long an answer is fresh by its `Cache-Control` (RFC 9111), within bounds.
fn freshness(headers: &HeaderMap) -> Duration {
    let mut age = None;
    let lines = headers.get_all(header::CACHE_CONTROL);
    let directives = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for directive in directives {
        let directive = directive.trim().to_ascii_lowercase();
        if matches!(directive.as_str(), "no-store" | "no-cache") {
            return LEAST_AGE;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            let seconds = seconds.trim_matches('"').parse().unwrap_or(0);
            age = Some(Duration::from_secs(seconds));
        }
    }
    age.unwrap_or(USUAL_AGE).clamp(LEAST_AGE, GREATEST_AGE)
}
