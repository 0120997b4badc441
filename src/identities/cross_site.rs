//! Whether a request may use a credential that the browser sent by itself.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap};
use policies::Denial;

use super::{
    client_address::ClientAddress, credential::TokenSource, request_view::PresentedCredentials,
};
use crate::config::{
    origin::{Origin, OriginPattern, Trust},
    server::ServerSettings,
};

/// The pages that may use what a browser sends by itself: those of the gate's own origin, and of the allowed ones.
///
/// Browsers say where a request comes from: `Sec-Fetch-Site` (Fetch Metadata), and `Origin` where a browser is too old
/// for it. A request with neither does not come from a page of another site: browsers send `Origin` with every POST
/// and DELETE, and other sites' pages cannot read the response to a GET.
#[derive(Clone)]
pub struct CrossSite {
    allowed_origins: Arc<[OriginPattern]>,
    public_origin: Option<Origin>,
    proxies: ClientAddress,
}

impl CrossSite {
    /// Allows what the config allows.
    #[must_use]
    pub fn new(server: &ServerSettings, proxies: &ClientAddress) -> Self {
        Self {
            allowed_origins: server.allowed_origins.clone().into(),
            public_origin: server.public_origin.as_ref().map(|own| own.0.clone()),
            proxies: proxies.clone(),
        }
    }

    /// Checks where a request comes from.
    ///
    /// # Errors
    ///
    /// [`Denial::CrossSite`] if it is a page of another site.
    pub fn check(&self, request: &dyn PresentedCredentials) -> Result<(), Denial> {
        let headers = request.headers();
        let site = only(headers, "sec-fetch-site")?;
        let origin = only(headers, header::ORIGIN.as_str())?;
        let is_ours = match origin {
            // `none` is the user: an address typed, a bookmark.
            None => matches!(site, None | Some("same-origin" | "none")),
            Some(origin) => self.is_ours(request, &Origin::parse(origin), site)?,
        };
        if is_ours {
            return Ok(());
        }
        Err(Denial::CrossSite(format!(
            "Sec-Fetch-Site is `{}`, Origin is `{}`",
            site.unwrap_or("absent").escape_debug(),
            origin.unwrap_or("absent").escape_debug()
        )))
    }

    /// Whether a page of `origin`, `None` if it is none in particular, may use cookies.
    fn is_ours(
        &self,
        request: &dyn PresentedCredentials,
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

    /// Whether `origin` is the one that `Host` names. The scheme is the one that a trusted proxy reports. Without such
    /// a report it must be https, or http on this machine.
    fn is_host(&self, request: &dyn PresentedCredentials, origin: &Origin) -> Result<bool, Denial> {
        let Some(host) = only(request.headers(), header::HOST.as_str())? else {
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

/// Schemes of `Authorization` whose credentials browsers keep, and send by themselves.
const BROWSER_SCHEMES: [&str; 4] = ["basic", "digest", "negotiate", "ntlm"];

/// Whether a browser may have sent the credential `value` by itself, or a proxy may have derived it from one that a
/// browser sent: cookies, and headers unless the identity says that its headers are not `ambient`. Pages set
/// `Authorization` themselves, except in the schemes that browsers have a dialog for.
pub(super) fn is_sent_by_itself(source: &TokenSource, value: &str, ambient: bool) -> bool {
    match source {
        TokenSource::Bearer => false,
        TokenSource::Cookie(_) => true,
        TokenSource::Header(name) if *name == header::AUTHORIZATION => {
            let scheme = value.split(' ').next().unwrap_or_default();
            let mut schemes = BROWSER_SCHEMES.iter();
            schemes.any(|browsers| scheme.eq_ignore_ascii_case(browsers))
        }
        TokenSource::Header(_) => ambient,
    }
}

/// The one value of a header, if there is one.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name);
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        _ => Err(Denial::CrossSite(format!("{name} cannot be read"))),
    }
}
