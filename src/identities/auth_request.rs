//! One request, while the identities of one `accept` authenticate it.

use std::net::IpAddr;

use policies::Denial;

use super::{
    credential::{Found, TokenSource, find_token},
    cross_site::{CrossSite, is_ambient},
    limits::FailureTracker,
    request_view::RequestView,
    token::Token,
};

/// One request, while the identities of one `accept` authenticate it. Each place of a token is read once.
pub struct AuthRequest<'a> {
    view: &'a dyn RequestView,
    cross_site: &'a CrossSite,
    tokens: Vec<(&'a TokenSource, Found<Token<'a>>)>,
    /// Whether an accepted identity claims a token in a place.
    is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
    pub(super) failures: FailureTracker<'a>,
}

impl<'a> AuthRequest<'a> {
    pub(super) fn new(
        view: &'a dyn RequestView,
        cross_site: &'a CrossSite,
        sources: impl Iterator<Item = &'a TokenSource>,
        is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
        failures: FailureTracker<'a>,
    ) -> Self {
        let mut tokens: Vec<(&TokenSource, Found<Token<'_>>)> = Vec::new();
        for source in sources {
            if tokens.iter().all(|(known, _)| *known != source) {
                tokens.push((source, find_token(view, source).map(Token::new)));
            }
        }
        Self {
            view,
            cross_site,
            tokens,
            is_claimed,
            failures,
        }
    }

    /// The request as the client sent it. A browser may have sent a header by itself: see
    /// [`check_origin`](Self::check_origin).
    #[must_use]
    pub fn view(&self) -> &'a dyn RequestView {
        self.view
    }

    /// The client's address, as far as the gate trusts the proxy that reports it.
    #[must_use]
    pub fn client_address(&self) -> IpAddr {
        self.failures.proxies().of(self.view)
    }

    /// Whether a trusted proxy sent the request.
    #[must_use]
    pub fn is_from_proxy(&self) -> bool {
        self.failures.proxies().is_from_proxy(self.view)
    }

    /// Checks that the request comes from one of the gate's own pages or from an allowed origin. A credential that a
    /// browser sends by itself needs this check.
    ///
    /// # Errors
    ///
    /// [`Denial::CrossSite`] if the request comes from a page of another site.
    pub fn check_origin(&self) -> Result<(), Denial> {
        self.cross_site.check(self.view)
    }

    /// Finds the first token in `from` for which `matches` returns a value, and returns both. `from` must be
    /// [`token_sources`](super::Identity::token_sources). If a browser sends the token by itself, the request must pass
    /// [`check_origin`](Self::check_origin); `ambient` says whether headers may hold such tokens.
    ///
    /// # Errors
    ///
    /// If a place is unreadable or ambiguous, or the request fails the origin check.
    pub fn find_token<T>(
        &self,
        from: &[TokenSource],
        ambient: bool,
        matches: impl Fn(&TokenSource, &Token<'a>) -> Option<T>,
    ) -> Result<Option<(&Token<'a>, T)>, Denial> {
        for (source, found) in self.found_in(from) {
            let token = match found {
                Found::Nothing => continue,
                Found::One(token) => token,
                Found::Invalid(reason) => {
                    return Err(Denial::InvalidCredentials((*reason).to_owned()));
                }
            };
            if let Some(matched) = matches(source, token) {
                if is_ambient(source, token.text(), ambient) {
                    self.check_origin()?;
                }
                return Ok(Some((token, matched)));
            }
        }
        Ok(None)
    }

    /// Whether an accepted identity claims a token in this place.
    pub(super) fn is_claimed(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        (self.is_claimed)(source, token)
    }

    /// All tokens in `from`.
    pub(super) fn tokens(&self, from: &[TokenSource]) -> impl Iterator<Item = &Token<'a>> {
        self.found_in(from).filter_map(|(_, found)| match found {
            Found::One(token) => Some(token),
            Found::Nothing | Found::Invalid(_) => None,
        })
    }

    fn found_in(
        &self,
        from: &[TokenSource],
    ) -> impl Iterator<Item = &(&'a TokenSource, Found<Token<'a>>)> {
        from.iter()
            .filter_map(|source| self.tokens.iter().find(|(known, _)| *known == source))
    }
}
