//! The tokens of a request, as they were found: nothing in them is verified yet.

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

/// A token. Each part of it is read at most once, and only if an identity needs it.
pub struct Token<'a> {
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

    /// The token as it was sent.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Whether the token is `secret`. The time that this takes says nothing about the secret.
    #[must_use]
    pub fn is(&self, secret: &SecretString) -> bool {
        let secret = digest([secret.expose_secret()]);
        constant_time::verify_slices_are_equal(self.digest(), &secret).is_ok()
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
