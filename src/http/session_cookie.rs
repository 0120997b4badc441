//! Translates the session cookie between clients and actix-session.
//!
//! actix-session finds its cookie by its own rules: it decodes names, and takes the first of several cookies. So the
//! gate shows it only the one cookie that `find_cookie` found, encrypted with the one key that actix-session knows. The gate also rewrites
//! the cookie that actix-session sets: with exactly the configured name, with attributes that actix-session does not
//! know, and without an encoding that would make the length random.

use std::{borrow::Cow, sync::Arc};

use actix_session::{
    SessionMiddleware,
    config::{CookieContentSecurity, PersistentSession, TtlExtensionPolicy},
};
use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    cookie::{Cookie, CookieJar, Key, time::Duration},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
};
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::{
        SessionSettings,
        session::{CookieSettings, SessionKeys},
    },
    http::session_store::Sessions,
    identities::{SignedIn, find_cookie},
};

/// The largest cookie that all browsers keep, including its name and attributes (RFC 6265, 6.1).
const MAX_COOKIE_BYTES: usize = 4096;

pub struct SessionCookie {
    name: String,
    /// The key of the cookie between the gate and actix-session, which never changes: the current one at start.
    inner: Key,
    /// The keys of the cookie between the gate and clients.
    keys: ArcSwap<Keys>,
    attributes: String,
    ttl: std::time::Duration,
    /// Whether the cookie itself holds the session, rather than a store.
    holds_session: bool,
}

struct Keys {
    current: Key,
    previous: Vec<Key>,
}

impl Keys {
    fn new(keys: &SessionKeys) -> Self {
        let key = |key: &SecretString| Key::from(key.expose_secret().as_bytes());
        Self {
            current: key(&keys.current),
            previous: keys.previous.iter().map(key).collect(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SessionRefused {
    #[error(
        "the session cookie would have {0} bytes, and browsers accept at most {MAX_COOKIE_BYTES}; set `store` in \
         [session], or keep fewer claims: those in `claims` of [session] and those that policies read"
    )]
    TooLong(usize),
    #[error("the session cannot be serialized: {0}")]
    Serialization(#[from] serde_json::Error),
}

impl SessionCookie {
    #[must_use]
    pub fn new(settings: &SessionSettings, keys: &SessionKeys) -> Self {
        let cookie = &settings.cookie;
        let keys = Keys::new(keys);
        Self {
            name: cookie.name.as_str().to_owned(),
            inner: keys.current.clone(),
            keys: ArcSwap::from_pointee(keys),
            attributes: attributes(cookie),
            ttl: settings.ttl.get(),
            holds_session: settings.store.name().is_none(),
        }
    }

    /// Replaces the keys of the cookie for new requests.
    pub fn replace_keys(&self, keys: &SessionKeys) {
        self.keys.store(Arc::new(Keys::new(keys)));
    }

    #[must_use]
    pub fn ttl(&self) -> std::time::Duration {
        self.ttl
    }

    /// Checks that browsers will keep the cookie of this session.
    pub fn check(&self, session: &SignedIn) -> Result<(), SessionRefused> {
        if !self.holds_session {
            return Ok(());
        }
        let encrypted = self.encrypt(&self.inner, serde_json::to_string(session)?);
        let length = self.set_cookie(&encrypted, self.max_age()).len();
        if length > MAX_COOKIE_BYTES {
            return Err(SessionRefused::TooLong(length));
        }
        Ok(())
    }

    /// The middleware of actix-session. Its cookie has no attributes; [`Self::rewrite`] adds them.
    #[must_use]
    pub fn middleware(&self, sessions: Sessions) -> SessionMiddleware<Sessions> {
        SessionMiddleware::builder(sessions, self.inner.clone())
            .cookie_name(self.name.clone())
            .cookie_content_security(CookieContentSecurity::Private)
            .session_lifecycle(
                PersistentSession::default()
                    .session_ttl(Duration::seconds(self.max_age()))
                    .session_ttl_extension_policy(TtlExtensionPolicy::OnStateChanges),
            )
            .build()
    }

    fn max_age(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }

    /// The session cookie of a request, in the form that actix-session reads, if there is exactly one.
    fn read(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let value = find_cookie(headers, &self.name).ok()??;
        let inner = self.inner_value(value)?;
        let cookie = Cookie::new(&self.name, inner);
        HeaderValue::from_str(&cookie.encoded().to_string()).ok()
    }

    /// Re-encrypts a value with the key that actix-session knows. `None` if the value belongs to none of the keys in force.
    fn inner_value<'a>(&self, value: &'a str) -> Option<Cow<'a, str>> {
        let keys = self.keys.load();
        let is_same = keys.current == self.inner;
        if is_same && keys.previous.is_empty() {
            // actix-session decrypts it.
            return Some(value.into());
        }
        if let Some(plain) = self.decrypt(&keys.current, value) {
            return Some(match is_same {
                true => value.into(),
                false => self.encrypt(&self.inner, plain).into(),
            });
        }
        let mut previous = keys.previous.iter();
        let plain = previous.find_map(|key| self.decrypt(key, value))?;
        Some(self.encrypt(&self.inner, plain).into())
    }

    /// Re-encrypts a value of actix-session with the current key.
    fn outer_value<'a>(&self, value: &'a str) -> Cow<'a, str> {
        let keys = self.keys.load();
        if keys.current == self.inner {
            return value.into();
        }
        // A removed cookie has no value.
        match self.decrypt(&self.inner, value) {
            Some(plain) => self.encrypt(&keys.current, plain).into(),
            None => value.into(),
        }
    }

    fn decrypt(&self, key: &Key, value: &str) -> Option<String> {
        let cookie = Cookie::new(self.name.clone(), value.to_owned());
        let plain = CookieJar::new().private(key).decrypt(cookie)?;
        Some(plain.value().to_owned())
    }

    fn encrypt(&self, key: &Key, plain: String) -> String {
        let mut jar = CookieJar::new();
        jar.private_mut(key)
            .add(Cookie::new(self.name.clone(), plain));
        let encrypted = jar.get(&self.name);
        encrypted.map_or_else(String::new, |cookie| cookie.value().to_owned())
    }

    /// The value of a `Set-Cookie` header.
    fn set_cookie(&self, value: &str, max_age: i64) -> String {
        let Self {
            name, attributes, ..
        } = self;
        format!("{name}={value}{attributes}; Max-Age={max_age}")
    }

    /// Rewrites the cookies that actix-session sets.
    fn rewrite(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::SET_COOKIE) {
            return;
        }
        for line in headers.remove(header::SET_COOKIE).collect::<Vec<_>>() {
            let rewritten = self.rewritten(&line).unwrap_or(line);
            headers.append(header::SET_COOKIE, rewritten);
        }
    }

    fn rewritten(&self, line: &HeaderValue) -> Option<HeaderValue> {
        let line = line.to_str().ok()?;
        // actix-session encodes the cookie that it sets, but not the one that it removes.
        let readings = [Cookie::parse_encoded(line), Cookie::parse(line)];
        let mut readings = readings.into_iter().flatten();
        let cookie = readings.find(|cookie| cookie.name() == self.name)?;
        let max_age = cookie.max_age()?.whole_seconds();
        let value = self.outer_value(cookie.value());
        HeaderValue::from_str(&self.set_cookie(&value, max_age)).ok()
    }
}

fn attributes(cookie: &CookieSettings) -> String {
    let mut attributes = format!("; Path={}", cookie.path.as_str());
    if let Some(domain) = &cookie.domain {
        attributes.push_str("; Domain=");
        attributes.push_str(domain.as_str());
    }
    attributes.push_str("; HttpOnly");
    if cookie.secure {
        attributes.push_str("; Secure");
    }
    attributes.push_str("; SameSite=");
    attributes.push_str(cookie.same_site.as_str());
    if cookie.partitioned {
        attributes.push_str("; Partitioned");
    }
    attributes
}

/// The cookies of a request, while actix-session sees only its own.
struct HiddenCookies(Vec<HeaderValue>);

/// Wraps actix-session: shows it only the session cookie, and rewrites the cookie that it sets.
pub(crate) async fn isolate_session_cookie<B: MessageBody>(
    cookie: Option<Arc<SessionCookie>>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let Some(cookie) = cookie else {
        return next.call(request).await;
    };
    let headers = request.headers_mut();
    if headers.contains_key(header::COOKIE) {
        let session = cookie.read(headers);
        let all = headers.remove(header::COOKIE).collect();
        if let Some(session) = session {
            headers.insert(header::COOKIE, session);
        }
        request.extensions_mut().insert(HiddenCookies(all));
    }
    let mut response = next.call(request).await?;
    cookie.rewrite(response.headers_mut());
    Ok(response)
}

/// Runs inside actix-session: restores all cookies of the request.
pub(crate) async fn restore_cookies<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let hidden = request.extensions_mut().remove::<HiddenCookies>();
    if let Some(HiddenCookies(all)) = hidden {
        let headers = request.headers_mut();
        headers.remove(header::COOKIE);
        for line in all {
            headers.append(header::COOKIE, line);
        }
    }
    next.call(request).await
}
