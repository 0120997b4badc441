//! One request, as the identities of one `accept` judge it.

use std::net::IpAddr;

use policies::Denial;

use super::{
    credential::TokenSource,
    credential::{self, Found},
    cross_site::{CrossSite, is_sent_by_itself},
    limits::Attempt,
    request_view::PresentedCredentials,
    token::Token,
};

/// One request, as the identities of one `accept` judge it. The places in which they look for tokens are read once.
pub struct Case<'a> {
    presented: &'a dyn PresentedCredentials,
    cross_site: &'a CrossSite,
    places: Vec<(&'a TokenSource, Place<'a>)>,
    /// Whether an identity that may judge the request claims a token in a place.
    is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
    /// What the case costs, and who pays for it.
    pub(super) attempt: Attempt<'a>,
}

enum Place<'a> {
    Empty,
    Token(Token<'a>),
    /// Something that cannot be a token, and why.
    Unusable(&'static str),
}

impl<'a> Case<'a> {
    pub(super) fn new(
        presented: &'a dyn PresentedCredentials,
        cross_site: &'a CrossSite,
        sources: impl Iterator<Item = &'a TokenSource>,
        is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
        attempt: Attempt<'a>,
    ) -> Self {
        let mut places: Vec<(&TokenSource, Place<'_>)> = Vec::new();
        for source in sources {
            if places.iter().all(|(known, _)| *known != source) {
                let place = match credential::token(presented, source) {
                    Found::Nothing => Place::Empty,
                    Found::One(text) => Place::Token(Token::new(text)),
                    Found::Unusable(reason) => Place::Unusable(reason),
                };
                places.push((source, place));
            }
        }
        Self {
            presented,
            cross_site,
            places,
            is_claimed,
            attempt,
        }
    }

    /// What the request presents. A header may hold a credential that a browser sent by itself: see
    /// [`check_origin`](Self::check_origin).
    #[must_use]
    pub fn presented(&self) -> &'a dyn PresentedCredentials {
        self.presented
    }

    /// The client's address, as far as the gate trusts what reports it.
    #[must_use]
    pub fn client_address(&self) -> IpAddr {
        self.attempt.proxies.of(self.presented)
    }

    /// Whether a trusted proxy sent the request.
    #[must_use]
    pub fn is_from_proxy(&self) -> bool {
        self.attempt.proxies.is_from_proxy(self.presented)
    }

    /// Checks that the request comes from one of the gate's own pages or from an allowed origin. A credential that a
    /// browser sends by itself needs this check.
    ///
    /// # Errors
    ///
    /// [`Denial::CrossSite`] if it comes from a page of another site.
    pub fn check_origin(&self) -> Result<(), Denial> {
        self.cross_site.check(self.presented)
    }

    /// The token in the first place of `from` whose token addresses an identity, with what `addressed` says of it. `from`
    /// are [`token_sources`](super::Identity::token_sources). A token that a browser sends by itself is taken from the
    /// gate's own pages and the allowed ones only; `ambient` says whether headers may hold such tokens.
    ///
    /// # Errors
    ///
    /// Why the place holds no token, or must not be used.
    pub fn find<T>(
        &self,
        from: &[TokenSource],
        ambient: bool,
        addressed: impl Fn(&TokenSource, &Token<'a>) -> Option<T>,
    ) -> Result<Option<(&Token<'a>, T)>, Denial> {
        for (source, place) in self.places_of(from) {
            let token = match place {
                Place::Empty => continue,
                Place::Token(token) => token,
                Place::Unusable(reason) => {
                    return Err(Denial::InvalidCredentials((*reason).to_owned()));
                }
            };
            if let Some(addressed) = addressed(source, token) {
                if is_sent_by_itself(source, token.text(), ambient) {
                    self.check_origin()?;
                }
                return Ok(Some((token, addressed)));
            }
        }
        Ok(None)
    }

    /// Whether a token in this place addresses an identity that claims such tokens.
    pub(super) fn is_claimed(&self, source: &TokenSource, token: &Token<'_>) -> bool {
        (self.is_claimed)(source, token)
    }

    /// The tokens in the places of `from`.
    pub(super) fn tokens(&self, from: &[TokenSource]) -> impl Iterator<Item = &Token<'a>> {
        self.places_of(from).filter_map(|(_, place)| match place {
            Place::Token(token) => Some(token),
            Place::Empty | Place::Unusable(_) => None,
        })
    }

    fn places_of(
        &self,
        from: &[TokenSource],
    ) -> impl Iterator<Item = &(&'a TokenSource, Place<'a>)> {
        from.iter()
            .filter_map(|source| self.places.iter().find(|(known, _)| *known == source))
    }
}
