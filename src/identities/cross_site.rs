//! The cross-site check: whether a request may use a credential that the browser sent by itself.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap};
use policies::{Denial, excerpt};

use super::{client_address::ClientAddress, request_view::RequestView};
use crate::config::{
    origin::{Origin, OriginPattern, Trust},
    server::ServerSettings,
};

/// Accepts requests from pages of the gate's own origin and of the allowed origins.
///
/// Browsers report where a request comes from in `Sec-Fetch-Site` (Fetch Metadata), and old ones only in `Origin`. A
/// request with neither does not come from a page of another site: browsers send `Origin` with every POST and DELETE, and
/// pages of other sites cannot read the response to a GET.
#[derive(Clone)]
pub struct CrossSite {
    allowed_origins: Arc<[OriginPattern]>,
    public_origin: Option<Origin>,
    proxies: ClientAddress,
}

impl CrossSite {
    #[must_use]
    pub fn new(server: &ServerSettings, proxies: &ClientAddress) -> Self {
        Self {
            allowed_origins: server.allowed_origins.clone().into(),
            public_origin: server.public_origin.as_ref().map(|own| own.0.clone()),
            proxies: proxies.clone(),
        }
    }

    /// # Errors
    ///
    /// [`Denial::CrossSite`] if the request comes from a page of another site.
    pub fn check(&self, request: &dyn RequestView) -> Result<(), Denial> {
        let headers = request.headers();
        let site = single_header(headers, "sec-fetch-site")?;
        let origin = single_header(headers, header::ORIGIN.as_str())?;
        let is_allowed = match origin {
            // `none`: the user typed the address or opened a bookmark.
            None => matches!(site, None | Some("same-origin" | "none")),
            Some(origin) => self.is_allowed(request, &Origin::parse(origin), site)?,
        };
        if is_allowed {
            return Ok(());
        }
        Err(Denial::CrossSite(format!(
            "Sec-Fetch-Site is `{}`, Origin is `{}`",
            excerpt(site.unwrap_or("absent")),
            excerpt(origin.unwrap_or("absent"))
        )))
    }

    /// Whether a page of `origin` may use cookies. `None` is an opaque origin.
    fn is_allowed(
        &self,
        request: &dyn RequestView,
        origin: &Option<Origin>,
        site: Option<&str>,
    ) -> Result<bool, Denial> {
        let is_allowed = origin.as_ref().is_some_and(|origin| {
            let mut allowed = self.allowed_origins.iter();
            allowed.any(|pattern| pattern.trust(origin) == Some(Trust::Credentials))
        });
        Ok(match (site, &self.public_origin, origin) {
            _ if is_allowed => true,
            (Some("none"), ..) => true,
            (_, Some(own), origin) => origin.as_ref() == Some(own),
            (Some(site), None, _) => site == "same-origin",
            (None, None, Some(origin)) => self.is_host(request, origin)?,
            (None, None, None) => false,
        })
    }

    /// Whether `origin` is the one that `Host` names. The scheme must be the one that a trusted proxy reports; without a
    /// report, https, or http on loopback.
    fn is_host(&self, request: &dyn RequestView, origin: &Origin) -> Result<bool, Denial> {
        let Some(host) = single_header(request.headers(), header::HOST.as_str())? else {
            return Ok(false);
        };
        let has_scheme = match self.proxies.reports_scheme(request, origin.scheme()) {
            Some(is_reported) => is_reported,
            None => match origin.scheme() {
                "https" => true,
                "http" => origin.is_loopback(),
                _ => false,
            },
        };
        Ok(has_scheme && origin.is_at(host))
    }
}

/// A header that occurs twice or is not readable fails the check.
fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name);
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Denial::CrossSite(format!(
            "{name} is unreadable or occurs twice"
        ))),
    }
}
