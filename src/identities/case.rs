//! One request, as the identities of one `accept` judge it.

use policies::Denial;

use super::{
    Entry,
    credential::{self, Found},
    cross_site::{CrossSite, is_sent_by_itself},
    failures::Attempt,
    presented::PresentedCredentials,
    token::Token,
    token_source::TokenSource,
};

/// One request, as the identities of one `accept` judge it. The places in which they look for tokens are read once.
pub struct Case<'a> {
    presented: &'a dyn PresentedCredentials,
    cross_site: &'a CrossSite,
    accepted: Accepted<'a>,
    places: Vec<(&'a TokenSource, Place<'a>)>,
    /// What the case costs, and who pays for it.
    pub(super) attempt: Attempt<'a>,
}

/// The identities of one `accept`, in its order.
#[derive(Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) positions: &'a [usize],
}

impl<'a> Accepted<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a Entry> {
        let positions = self.positions.iter();
        positions.filter_map(move |position| self.entries.get(*position))
    }
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
        accepted: Accepted<'a>,
        attempt: Attempt<'a>,
    ) -> Self {
        let mut places: Vec<(&TokenSource, Place<'_>)> = Vec::new();
        for source in accepted
            .iter()
            .flat_map(|entry| entry.identity.token_sources())
        {
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
            accepted,
            places,
            attempt,
        }
    }

    /// What the request presents. A header may hold a credential that a browser sent by itself: see
    /// [`check_origin`](Self::check_origin).
    #[must_use]
    pub fn presented(&self) -> &'a dyn PresentedCredentials {
        self.presented
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
        let mut accepted = self.accepted.iter();
        accepted.any(|entry| entry.identity.claims_token(source, token))
    }

    /// Why none of the tokens addresses an identity, if there are any.
    pub(super) fn why_unaddressed(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for Entry { name, identity } in self.accepted.iter() {
            for (_, place) in self.places_of(identity.token_sources()) {
                if let Place::Token(token) = place
                    && let Some(reason) = identity.why_unaddressed(token)
                {
                    reasons.push(format!("identity `{name}`: {reason}"));
                }
            }
        }
        reasons
    }

    fn places_of(
        &self,
        from: &[TokenSource],
    ) -> impl Iterator<Item = &(&'a TokenSource, Place<'a>)> {
        from.iter()
            .filter_map(|source| self.places.iter().find(|(known, _)| *known == source))
    }
}
