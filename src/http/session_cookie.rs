//! The session cookie between clients and actix-session.
//!
//! actix-session finds its cookie by its own rules: it decodes names and takes the first of several. So it never sees
//! what a client sent, only the one cookie that the gate's reader found, encrypted with the current key. The gate then
//! writes what actix-session sets: exactly the configured name, attributes that actix-session does not know, and no
//! encoding that would make the length depend on chance.

use std::sync::Arc;

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
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::{
        SessionSettings,
        session::{CookieSettings, SessionKeys},
    },
    http::session_store::Sessions,
    identities::{RequestCookie, SignedIn},
};

/// The longest cookie that every browser keeps, with its name and attributes (RFC 6265, 6.1).
const MAX_COOKIE_BYTES: usize = 4096;

pub struct SessionCookie {
    name: String,
    current: Key,
    previous: Vec<Key>,
    attributes: String,
    ttl: std::time::Duration,
    /// Whether the session is in the cookie itself.
    holds_session: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionRefused {
    #[error(
        "the session takes {0} bytes as a cookie, and browsers keep {MAX_COOKIE_BYTES}; keep sessions in a store with \
         [session] store, or have fewer claims read by policies and named in [session] claims"
    )]
    TooLong(usize),
    #[error("the session cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

impl SessionCookie {
    #[must_use]
    pub fn new(settings: &SessionSettings, keys: &SessionKeys) -> Self {
        let key = |key: &SecretString| Key::from(key.expose_secret().as_bytes());
        let cookie = &settings.cookie;
        Self {
            name: cookie.name.as_str().to_owned(),
            current: key(&keys.current),
            previous: keys.previous.iter().map(key).collect(),
            attributes: attributes(cookie),
            ttl: settings.ttl.get(),
            holds_session: settings.store.name().is_none(),
        }
    }

    #[must_use]
    pub fn ttl(&self) -> std::time::Duration {
        self.ttl
    }

    /// Whether browsers will keep the cookie of this session; the error says why not.
    pub fn check(&self, session: &SignedIn) -> Result<(), SessionRefused> {
        if !self.holds_session {
            return Ok(());
        }
        let sealed = self.sealed(serde_json::to_string(session)?);
        let length = self.line(&sealed, self.max_age()).len();
        if length > MAX_COOKIE_BYTES {
            return Err(SessionRefused::TooLong(length));
        }
        Ok(())
    }

    /// The middleware of actix-session. Its cookie has no attributes: [`Self::write`] adds them.
    #[must_use]
    pub fn middleware(&self, sessions: Sessions) -> SessionMiddleware<Sessions> {
        SessionMiddleware::builder(sessions, self.current.clone())
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

    /// The session cookie of a request as actix-session reads it, if there is exactly one.
    fn read(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let RequestCookie::One(value) = RequestCookie::find(headers, &self.name) else {
            return None;
        };
        let value = std::str::from_utf8(value).ok()?;
        let renewed = self.renewed(value);
        let cookie = Cookie::new(&self.name, renewed.as_deref().unwrap_or(value));
        HeaderValue::from_str(&cookie.encoded().to_string()).ok()
    }

    /// Encrypts a value of an earlier key with the current one, because actix-session knows only one key.
    fn renewed(&self, value: &str) -> Option<String> {
        if self.previous.is_empty() {
            return None;
        }
        let cookie = Cookie::new(self.name.clone(), value.to_owned());
        let open = |key: &Key| CookieJar::new().private(key).decrypt(cookie.clone());
        if open(&self.current).is_some() {
            return None;
        }
        let plain = self.previous.iter().find_map(open)?;
        Some(self.sealed(plain.value().to_owned()))
    }

    /// Encrypts with the current key.
    fn sealed(&self, plain: String) -> String {
        let mut jar = CookieJar::new();
        jar.private_mut(&self.current)
            .add(Cookie::new(self.name.clone(), plain));
        let sealed = jar.get(&self.name);
        sealed.map_or_else(String::new, |cookie| cookie.value().to_owned())
    }

    /// The value of a `Set-Cookie` header.
    fn line(&self, value: &str, max_age: i64) -> String {
        let Self {
            name, attributes, ..
        } = self;
        format!("{name}={value}{attributes}; Max-Age={max_age}")
    }

    /// Rewrites what actix-session sets.
    fn write(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::SET_COOKIE) {
            return;
        }
        for line in headers.remove(header::SET_COOKIE).collect::<Vec<_>>() {
            let written = self.written(&line).unwrap_or(line);
            headers.append(header::SET_COOKIE, written);
        }
    }

    fn written(&self, line: &HeaderValue) -> Option<HeaderValue> {
        let line = line.to_str().ok()?;
        // actix-session encodes the cookie that it sets, but not the one that it removes.
        let readings = [Cookie::parse_encoded(line), Cookie::parse(line)];
        let mut readings = readings.into_iter().flatten();
        let cookie = readings.find(|cookie| cookie.name() == self.name)?;
        let max_age = cookie.max_age()?.whole_seconds();
        HeaderValue::from_str(&self.line(cookie.value(), max_age)).ok()
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

/// The request's cookies, while actix-session sees only its own.
struct SetAside(Vec<HeaderValue>);

/// Runs outside actix-session: shows it only the session cookie, and rewrites what it sets.
pub(crate) async fn around<B: MessageBody>(
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
        request.extensions_mut().insert(SetAside(all));
    }
    let mut response = next.call(request).await?;
    cookie.write(response.headers_mut());
    Ok(response)
}

/// Runs inside actix-session: restores the request's cookies.
pub(crate) async fn within<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let aside = request.extensions_mut().remove::<SetAside>();
    if let Some(SetAside(all)) = aside {
        let headers = request.headers_mut();
        headers.remove(header::COOKIE);
        for line in all {
            headers.append(header::COOKIE, line);
        }
    }
    next.call(request).await
}
