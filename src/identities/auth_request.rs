//! One request, while the identities of one `accept` authenticate it, and its tokens, before they are verified.

use std::{borrow::Cow, cell::OnceCell, net::IpAddr};

use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use policies::{Claims, Denial, TokenOrigin, excerpt};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use super::{
    cross_site::CrossSite,
    issuer::Issuers,
    keys::{Key, algorithm},
    limits::FailureTracker,
    request_view::{RequestView, TokenSource, find_token},
};
use crate::outbound::digest::{Digest, digest};

/// The text of the token in each place. A token that is taken out of a cookie is a text of its own.
pub(super) struct FoundTokens<'a>(Vec<FoundToken<'a>>);

type FoundToken<'a> = (&'a TokenSource, Result<Option<Cow<'a, str>>, Denial>);

impl<'a> FoundTokens<'a> {
    /// Reads each place once.
    pub(super) fn read(
        view: &'a dyn RequestView,
        sources: impl Iterator<Item = &'a TokenSource>,
    ) -> Self {
        let mut tokens: Vec<FoundToken<'a>> = Vec::new();
        for source in sources {
            if tokens.iter().all(|(known, _)| *known != source) {
                tokens.push((source, find_token(view.headers(), source)));
            }
        }
        Self(tokens)
    }
}

/// One request, while the identities of one `accept` authenticate it.
pub struct AuthRequest<'a> {
    view: &'a dyn RequestView,
    cross_site: &'a CrossSite,
    tokens: Vec<(&'a TokenSource, Result<Option<Token<'a>>, Denial>)>,
    /// Whether an accepted identity claims a token in a place.
    is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
    pub(super) failures: FailureTracker<'a>,
}

impl<'a> AuthRequest<'a> {
    pub(super) fn new(
        view: &'a dyn RequestView,
        cross_site: &'a CrossSite,
        found: &'a FoundTokens<'a>,
        is_claimed: &'a dyn Fn(&TokenSource, &Token<'_>) -> bool,
        failures: FailureTracker<'a>,
    ) -> Self {
        let tokens = found.0.iter().map(|(source, found)| {
            let text = found.as_ref().map_err(Clone::clone);
            (*source, text.map(|text| text.as_deref().map(Token::new)))
        });
        Self {
            view,
            cross_site,
            tokens: tokens.collect(),
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
            if let Some(token) = found.as_ref().map_err(Clone::clone)?
                && let Some(matched) = matches(source, token)
            {
                if source.is_ambient(token.text(), ambient) {
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
        self.found_in(from)
            .filter_map(|(_, found)| found.as_ref().ok()?.as_ref())
    }

    /// What a JWT in `from` says about its issuer, for the log: the first that `is_own`, or else the first.
    pub(super) fn origin_of_token(
        &self,
        from: &[TokenSource],
        is_own: impl Fn(&TokenSource, &Token<'_>) -> bool,
    ) -> Option<Box<TokenOrigin>> {
        let tokens = || {
            let found = self.found_in(from);
            found.filter_map(|(source, found)| Some((source, found.as_ref().ok()?.as_ref()?)))
        };
        let own = tokens().find(|(source, token)| is_own(source, token));
        let own = own.and_then(|(_, token)| token.jwt());
        let jwt = own.or_else(|| tokens().find_map(|(_, token)| token.jwt()))?;
        let issuer = jwt.iss().map(|iss| match iss {
            Value::String(iss) => excerpt(iss),
            other => excerpt(&other.to_string()),
        });
        let kid = jwt.kid().map(excerpt);
        Some(Box::new(TokenOrigin { issuer, kid }))
    }

    fn found_in(
        &self,
        from: &[TokenSource],
    ) -> impl Iterator<Item = &(&'a TokenSource, Result<Option<Token<'a>>, Denial>)> {
        from.iter()
            .filter_map(|source| self.tokens.iter().find(|(known, _)| *known == source))
    }
}

/// A token of a request. Each part is parsed at most once, and only if an identity needs it.
pub struct Token<'a> {
    text: &'a str,
    digest: OnceCell<Digest>,
    jwt: OnceCell<Option<UnverifiedJwt<'a>>>,
}

impl<'a> Token<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            digest: OnceCell::new(),
            jwt: OnceCell::new(),
        }
    }

    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Compares the token with `secret` in constant time.
    #[must_use]
    pub fn is(&self, secret: &SecretString) -> bool {
        let secret = digest([secret.expose_secret()]);
        constant_time::verify_slices_are_equal(self.digest(), &secret).is_ok()
    }

    /// The key of the token in caches.
    pub(super) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| digest([self.text]))
    }

    /// Returns the token as a JWT, if it is one.
    pub(super) fn jwt(&self) -> Option<&UnverifiedJwt<'a>> {
        self.jwt
            .get_or_init(|| UnverifiedJwt::parse(self.text))
            .as_ref()
    }
}

/// A JSON Web Token before its signature is verified. Its algorithm and issuer select the identity, which then checks
/// both.
pub(super) struct UnverifiedJwt<'a> {
    header: Header,
    algorithm: Option<Algorithm>,
    /// The signed part.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
    issuer: OnceCell<IssuerClaims>,
}

/// The members of the header (RFC 7515, 4.1) that the gate reads. Keys and URLs in a header are never used.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, rename = "crit", deserialize_with = "is_present")]
    has_crit: bool,
}

/// A member is there even if it is `null`.
fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[derive(Default, Deserialize)]
struct IssuerClaims {
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
        let header: Header = serde_json::from_slice(&header).ok()?;
        Some(Self {
            algorithm: algorithm::parse(&header.alg),
            header,
            message,
            payload,
            signature,
            issuer: OnceCell::new(),
        })
    }

    /// The algorithm as the token names it.
    pub(super) fn alg(&self) -> &str {
        &self.header.alg
    }

    /// The algorithm, if the gate knows it.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    pub(super) fn has_crit(&self) -> bool {
        self.header.has_crit
    }

    pub(super) fn iss(&self) -> Option<&Value> {
        self.issuer_claims().iss.as_ref()
    }

    pub(super) fn is_from(&self, issuers: &Issuers) -> bool {
        let (iss, tid) = self.issuer();
        iss.is_some_and(|iss| issuers.contains(iss, tid))
    }

    /// Whether the issuer of a key may be the token's.
    pub(super) fn may_be_signed_by(&self, key: &Key) -> bool {
        let (iss, tid) = self.issuer();
        key.vouches_for(iss, tid)
    }

    /// `iss` and `tid`.
    fn issuer(&self) -> (Option<&str>, Option<&str>) {
        let IssuerClaims { iss, tid } = self.issuer_claims();
        let [iss, tid] = [iss, tid].map(|claim| claim.as_ref().and_then(Value::as_str));
        (iss, tid)
    }

    fn issuer_claims(&self) -> &IssuerClaims {
        self.issuer
            .get_or_init(|| self.read_payload().unwrap_or_default())
    }

    /// Verifies the signature with `key`, which must be for the token's algorithm and issuer.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        let message = self.message.as_bytes();
        self.algorithm.is_some_and(|algorithm| {
            key.serves(algorithm)
                && self.may_be_signed_by(key)
                && crypto::verify(self.signature, message, key.decoding(), algorithm)
                    .unwrap_or(false)
        })
    }

    /// The claims, which are valid only if the signature is.
    pub(super) fn claims(&self) -> Option<Claims> {
        self.read_payload()
    }

    fn read_payload<T: DeserializeOwned>(&self) -> Option<T> {
        let payload = URL_SAFE_NO_PAD.decode(self.payload).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}
