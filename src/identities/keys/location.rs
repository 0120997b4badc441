//! Where an issuer publishes its key set: at a URL of the config, or at the one in its discovery document (OpenID
//! Connect Discovery).

use std::time::Duration;

use actix_web::http::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use bytes::Bytes;
use policies::excerpt;

use crate::{
    config::ServiceUrl,
    identities::issuer::Issuers,
    outbound::{HttpClient, InvalidResponse, JsonObject, OutboundRequest, Resend},
};

/// If the issuer sends no `Cache-Control`.
const DEFAULT_AGE: Duration = Duration::from_secs(15 * 60);

/// Limits of the issuer's `Cache-Control`.
pub(super) const MIN_AGE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Some issuers answer 406 to a request that accepts JSON only.
pub(super) const ACCEPT_KEYS: &str = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1";
pub(super) const ACCEPT_METADATA: &str = "application/json, */*;q=0.1";

/// Where an issuer publishes its key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Jwks(ServiceUrl),
    Discovery {
        document: ServiceUrl,
        /// The document must have one of these issuers.
        issuers: Issuers,
        insecure_http: bool,
    },
}

pub(super) struct KeySetSource {
    location: Location,
    http: HttpClient,
}

impl KeySetSource {
    #[must_use]
    pub(super) const fn new(location: Location, http: HttpClient) -> Self {
        Self { location, http }
    }

    pub(super) const fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn is_at(&self, location: &Location) -> bool {
        self.location == *location
    }

    /// Fetches the text of the set, and how long it is fresh. `jwks_url` caches the result of the discovery until a fetch
    /// fails.
    pub(super) async fn fetch(
        &self,
        jwks_url: &mut Option<ServiceUrl>,
    ) -> Result<(Bytes, Duration), String> {
        let url = match jwks_url.take() {
            Some(url) => url,
            None => self.locate().await?,
        };
        let (text, headers) = self.get(url.as_str(), ACCEPT_KEYS).await?;
        *jwks_url = Some(url);
        Ok((text, freshness(&headers)))
    }

    /// Returns the URL of the set.
    pub(super) async fn locate(&self) -> Result<ServiceUrl, String> {
        match &self.location {
            Location::Jwks(url) => Ok(url.clone()),
            Location::Discovery {
                document,
                issuers,
                insecure_http,
            } => self.discover(document, issuers, *insecure_http).await,
        }
    }

    /// Finds the URL in the issuer's metadata (OpenID Connect Discovery 1.0, 4).
    async fn discover(
        &self,
        document: &ServiceUrl,
        issuers: &Issuers,
        insecure_http: bool,
    ) -> Result<ServiceUrl, String> {
        let url = document.as_str();
        let (text, _) = self.get(url, ACCEPT_METADATA).await?;
        let found = Discovered::parse(&text).map_err(|reason| format!("{url}: {reason}"))?;
        if !issuers.are_named(&found.issuer) {
            let issuer = excerpt(&found.issuer);
            return Err(format!(
                "{url}: the discovery document has another issuer: it names `{issuer}`, and the config {issuers}"
            ));
        }
        let keys = found.jwks_uri;
        if keys.is_private() || insecure_http {
            Ok(keys)
        } else {
            let keys = excerpt(keys.as_str());
            Err(format!(
                "{url}: the discovery document's `jwks_uri` is `{keys}`, which is not https"
            ))
        }
    }

    pub(super) async fn get(
        &self,
        url: &str,
        accept: &'static str,
    ) -> Result<(Bytes, HeaderMap), String> {
        let response = self
            .http
            .send(OutboundRequest {
                method: Method::GET,
                url,
                headers: vec![(header::ACCEPT, HeaderValue::from_static(accept))],
                body: Bytes::new(),
                timeout: TIMEOUT,
                max_response_bytes: MAX_RESPONSE_BYTES,
                resend: Resend::Safe,
            })
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        if response.status == StatusCode::OK {
            Ok((response.body, response.headers))
        } else {
            Err(format!("{url}: {}", response.unexpected_status()))
        }
    }
}

/// The URL of the discovery document under an issuer.
pub(crate) fn discovery_url(issuer: &str) -> String {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    format!("{base}/.well-known/openid-configuration")
}

/// What the gate needs of a discovery document.
pub(super) struct Discovered {
    pub(super) issuer: String,
    pub(super) jwks_uri: ServiceUrl,
}

impl Discovered {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let invalid = |error: InvalidResponse| error.to_string();
        let mut metadata = JsonObject::parse(text).map_err(invalid)?;
        let issuer = metadata.take_string("issuer").map_err(invalid)?;
        let jwks_uri = metadata.take_string("jwks_uri").map_err(invalid)?;
        let jwks_uri = ServiceUrl::try_from(jwks_uri)
            .map_err(|fault| format!("the discovery document's `jwks_uri` {fault}"))?;
        Ok(Self { issuer, jwks_uri })
    }
}

/// Returns how long a response is fresh according to its `Cache-Control` (RFC 9111), within limits.
fn freshness(headers: &HeaderMap) -> Duration {
    let mut age = None;
    let lines = headers.get_all(header::CACHE_CONTROL);
    let directives = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for directive in directives {
        let directive = directive.trim().to_ascii_lowercase();
        if matches!(directive.as_str(), "no-store" | "no-cache") {
            return MIN_AGE;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            let seconds = seconds.trim_matches('"').parse().unwrap_or(0);
            age = Some(Duration::from_secs(seconds));
        }
    }
    age.unwrap_or(DEFAULT_AGE).clamp(MIN_AGE, MAX_AGE)
}
