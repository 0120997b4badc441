//! The tokens of a request, as they were found: nothing in them is verified yet.

use std::cell::OnceCell;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use policies::{Claims, Denial};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use super::{
    cross_site::{CrossSite, is_sent_by_itself},
    lookup::{self, Found},
    request_view::RequestView,
};
use crate::{
    digest::{Digest, digest},
    keys::Key,
    settings::identities::{TokenSource, issuer::Issuers},
};

/// What a request has in the places where the accepted identities look for tokens, each place read once.
pub(super) struct Tokens<'a> {
    request: &'a dyn RequestView,
    cross_site: &'a CrossSite,
    places: Vec<(&'a TokenSource, Place<'a>)>,
}

enum Place<'a> {
    Empty,
    Token(Token<'a>),
    /// Something that cannot be a token, and why.
    Unusable(&'static str),
}

impl<'a> Tokens<'a> {
    /// Reads the places that `sources` name.
    pub(super) fn new(
        request: &'a dyn RequestView,
        cross_site: &'a CrossSite,
        sources: impl Iterator<Item = &'a TokenSource>,
    ) -> Self {
        let mut places: Vec<(&TokenSource, Place<'_>)> = Vec::new();
        for source in sources {
            if places.iter().all(|(known, _)| *known != source) {
                let place = match lookup::token(request, source) {
                    Found::Nothing => Place::Empty,
                    Found::One(text) => Place::Token(Token::new(text)),
                    Found::Unusable(reason) => Place::Unusable(reason),
                };
                places.push((source, place));
            }
        }
        Self {
            request,
            cross_site,
            places,
        }
    }

    pub(super) fn request(&self) -> &'a dyn RequestView {
        self.request
    }

    /// The token in the first place of `from` whose token addresses an identity, with what `addressed` says of it. A
    /// token that a browser sends by itself is taken from the gate's own pages and the allowed ones only; `ambient` says
    /// whether headers may hold such tokens.
    ///
    /// # Errors
    ///
    /// Why the place holds no token, or must not be used.
    pub(super) fn find<T>(
        &self,
        from: &[TokenSource],
        ambient: bool,
        addressed: impl Fn(&TokenSource, &Token<'a>) -> Option<T>,
    ) -> Result<Option<(&Token<'a>, T)>, Denial> {
        for (source, place) in self.places_of(from) {
            let found = match place {
                Place::Empty => None,
                Place::Token(token) => addressed(source, token).map(|addressed| (token, addressed)),
                Place::Unusable(reason) => {
                    return Err(Denial::InvalidCredentials((*reason).to_owned()));
                }
            };
            if found.is_some() {
                let by_itself =
                    |(token, _): &(&Token<'_>, T)| is_sent_by_itself(source, token.text(), ambient);
                if found.as_ref().is_some_and(by_itself) {
                    self.cross_site.check(self.request)?;
                }
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The tokens in the places of `from`.
    pub(super) fn at(&self, from: &[TokenSource]) -> impl Iterator<Item = &Token<'a>> {
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

/// A token. Each part of it is read at most once, and only if an identity needs it.
pub(super) struct Token<'a> {
    text: &'a str,
    digest: OnceCell<Digest>,
    /// Boxed, so that returning users' requests do not carry room for it.
    jwt: OnceCell<Option<Box<UnverifiedJwt<'a>>>>,
}

impl<'a> Token<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            digest: OnceCell::new(),
            jwt: OnceCell::new(),
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// What the token is remembered by.
    pub(super) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| digest([self.text]))
    }

    /// The token, if it is a signed JWT of a known algorithm.
    pub(super) fn jwt(&self) -> Option<&UnverifiedJwt<'a>> {
        let jwt = self
            .jwt
            .get_or_init(|| UnverifiedJwt::parse(self.text).map(Box::new));
        jwt.as_deref()
    }
}

/// A JSON Web Token whose signature is not verified. Its algorithm and its issuer choose the identity that judges it.
/// That identity believes neither.
pub(super) struct UnverifiedJwt<'a> {
    header: Header,
    /// What is signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
    origin: OnceCell<Origin>,
}

/// The members of the header (RFC 7515, 4.1) that the gate reads. Keys and URLs in a header are never used.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// What the token says of its issuer.
#[derive(Default, Deserialize)]
struct Origin {
    iss: Option<Value>,
    tid: Option<Value>,
}

impl<'a> UnverifiedJwt<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        Some(Self {
            header: serde_json::from_slice(&header).ok()?,
            message,
            payload,
            signature,
            origin: OnceCell::new(),
        })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether the header demands an extension (`crit`).
    pub(super) fn demands_extension(&self) -> bool {
        self.header.crit.is_some()
    }

    /// The issuer that the token names.
    pub(super) fn issuer(&self) -> Option<&Value> {
        self.origin().iss.as_ref()
    }

    /// Whether the token names one of `issuers`.
    pub(super) fn is_of(&self, issuers: &Issuers) -> bool {
        let origin = self.origin();
        let tid = origin.tid.as_ref().and_then(Value::as_str);
        let issuer = origin.iss.as_ref().and_then(Value::as_str);
        issuer.is_some_and(|issuer| issuers.include(issuer, tid))
    }

    fn origin(&self) -> &Origin {
        self.origin
            .get_or_init(|| self.read_payload().unwrap_or_default())
    }

    /// Whether `key` signed the token. The algorithm is the key's.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        let message = self.message.as_bytes();
        crypto::verify(self.signature, message, key.decoding(), key.algorithm()).unwrap_or(false)
    }

    /// The claims, which hold only if the signature does.
    pub(super) fn claims(&self) -> Option<Claims> {
        self.read_payload()
    }

    fn read_payload<T: DeserializeOwned>(&self) -> Option<T> {
        let payload = URL_SAFE_NO_PAD.decode(self.payload).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}
