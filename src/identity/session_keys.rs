//! The rotation of the session cookie's key: cookies of earlier keys are encrypted anew on their way in, for
//! actix-session knows one key.

use actix_web::{
    cookie::{Cookie, CookieJar, Key},
    http::header::{self, HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret as _;

use crate::settings::session::{CookieName, SessionKeys};

/// The current key and those before it.
pub struct KeyRotation {
    cookie: String,
    current: Key,
    previous: Vec<Key>,
}

impl KeyRotation {
    /// Takes the keys of the cookie `name`.
    #[must_use]
    pub fn new(name: &CookieName, keys: &SessionKeys) -> Self {
        let previous = keys.previous.iter();
        Self {
            cookie: name.as_str().to_owned(),
            current: Key::from(keys.current.expose_secret().as_bytes()),
            previous: previous
                .map(|key| Key::from(key.expose_secret().as_bytes()))
                .collect(),
        }
    }

    /// Whether there is an earlier key at all.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.previous.is_empty()
    }

    /// The `Cookie` field with the session's cookie encrypted by the current key, if it was encrypted by an
    /// earlier one.
    #[must_use]
    pub fn cookies_by_current_key(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut changed = false;
        let mut pairs = Vec::new();
        for line in headers.get_all(header::COOKIE) {
            for pair in line.to_str().ok()?.split(';').map(str::trim) {
                let renewed = self.renewed(pair);
                changed |= renewed.is_some();
                pairs.push(renewed.unwrap_or_else(|| pair.to_owned()));
            }
        }
        changed
            .then(|| HeaderValue::from_str(&pairs.join("; ")).ok())
            .flatten()
    }

    fn renewed(&self, pair: &str) -> Option<String> {
        let cookie = Cookie::parse_encoded(pair)
            .ok()
            .filter(|cookie| cookie.name() == self.cookie)?
            .into_owned();
        let open = |key: &Key| CookieJar::new().private(key).decrypt(cookie.clone());
        if open(&self.current).is_some() {
            return None;
        }
        let plain = self.previous.iter().find_map(open)?;
        let mut jar = CookieJar::new();
        jar.private_mut(&self.current).add(plain);
        let renewed = jar.get(&self.cookie)?;
        Some(renewed.stripped().encoded().to_string())
    }
}
