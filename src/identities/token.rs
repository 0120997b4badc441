//! A token of a request, before it is verified.

use std::cell::OnceCell;

use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use policies::Claims;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use super::issuer::Issuers;
use crate::{
    identities::keys::Key,
    outbound::digest::{Digest, digest},
};

/// Each part is parsed at most once, and only if an identity needs it.
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

    /// Returns the token as a JWT, if it is one of a known algorithm.
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
    /// The signed part.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
    issuer: OnceCell<IssuerClaims>,
}

/// The members of the header (RFC 7515, 4.1) that the gate reads. Keys and URLs in a header are never used.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
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
        Some(Self {
            header: serde_json::from_slice(&header).ok()?,
            message,
            payload,
            signature,
            issuer: OnceCell::new(),
        })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    pub(super) fn has_crit(&self) -> bool {
        self.header.crit.is_some()
    }

    pub(super) fn iss(&self) -> Option<&Value> {
        self.issuer_claims().iss.as_ref()
    }

    pub(super) fn is_from(&self, issuers: &Issuers) -> bool {
        let claims = self.issuer_claims();
        let tid = claims.tid.as_ref().and_then(Value::as_str);
        let iss = claims.iss.as_ref().and_then(Value::as_str);
        iss.is_some_and(|iss| issuers.contains(iss, tid))
    }

    fn issuer_claims(&self) -> &IssuerClaims {
        self.issuer
            .get_or_init(|| self.read_payload().unwrap_or_default())
    }

    /// Verifies the signature with `key` and its algorithm.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        let message = self.message.as_bytes();
        crypto::verify(self.signature, message, key.decoding(), key.algorithm()).unwrap_or(false)
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
