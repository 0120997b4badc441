//! Whether a request may use a credential that the browser sent by itself.

use actix_web::http::header::{self, HeaderMap};
use policies::Denial;

use super::request_view::RequestView;
use crate::settings::server::Origin;

/// Tells pages of the gate's own origin, and of the allowed ones, from all others, by what browsers say of a
/// request: `Sec-Fetch-Site` (Fetch Metadata), and `Origin` where a browser is too old for it.
///
/// A request with neither does not come from a foreign page: browsers send `Origin` with every POST and
/// DELETE, and what a GET answers, foreign pages cannot read.
#[derive(Clone)]
pub struct CrossSite {
    allowed_origins: Vec<Origin>,
}

impl CrossSite {
    /// Lets in the origins that the config allows.
    #[must_use]
    pub fn new(allowed_origins: &[Origin]) -> Self {
        Self {
            allowed_origins: allowed_origins.to_vec(),
        }
    }

    /// Checks where a request comes from.
    ///
    /// # Errors
    ///
    /// [`Denial::CrossSite`] when it is a foreign page.
    pub fn check(&self, request: &dyn RequestView) -> Result<(), Denial> {
        let headers = request.headers();
        let text = |name| only(headers, name);
        let origin = text(header::ORIGIN.as_str())?;
        if let Some(origin) = origin
            && self
                .allowed_origins
                .iter()
                .any(|allowed| allowed.as_str() == origin)
        {
            return Ok(());
        }
        match (text("sec-fetch-site")?, origin) {
            // `none` is the user: an address typed, a bookmark.
            (Some("same-origin" | "none"), _) | (None, None) => Ok(()),
            (Some(site), origin) => Err(Denial::CrossSite(format!(
                "Sec-Fetch-Site is `{}`, Origin is `{}`",
                site.escape_debug(),
                origin.unwrap_or("absent").escape_debug()
            ))),
            (None, Some(origin)) => {
                let host = text(header::HOST.as_str())?;
                let own = origin.split_once("://").map(|(_, authority)| authority);
                if own.is_some() && own == host {
                    Ok(())
                } else {
                    let origin = origin.escape_debug();
                    Err(Denial::CrossSite(format!("Origin is `{origin}`")))
                }
            }
        }
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
