//! Entries of `[policies]`, `[identities]` and `[[routes]]`, key by key: `rate_limit().per(["user"]).limit(3)`.

use serde::Serialize;
use toml::{Table, Value};

use super::env;

/// An entry of `[policies]`, `[identities]` or `[[routes]]`.
#[derive(Clone)]
pub(crate) struct Entry(pub(super) Table);

impl Entry {
    fn new(kind: &str) -> Self {
        Self(Table::new()).set("kind", kind)
    }

    pub(crate) fn set(mut self, key: &str, value: impl Serialize) -> Self {
        let value = Value::try_from(value).unwrap();
        self.0.insert(key.to_owned(), value);
        self
    }

    /// The policy observes: it counts what it would deny.
    pub(crate) fn observe(self) -> Self {
        self.set("mode", "observe")
    }
}

/// Methods that set the key of their name.
macro_rules! setters {
    ($($key:ident,)+) => {
        impl Entry {
            $(
                pub(crate) fn $key(self, value: impl Serialize) -> Self {
                    self.set(stringify!($key), value)
                }
            )+
        }
    };
}

setters! {
    ambient, audience, auth_method, burst, cache, claim, claims, client_metadata, delete_roles, from, issuer, limit,
    max_bytes, max_images, max_open, max_size, members, message, metadata, mime_types, on_failure, per, period, protocol, purpose, purposes, query, roles,
    store, subject_prefix, timeout, token, url, when, window,
}

/// A route that uploads through the gate, with records in the store `main`.
pub(crate) fn upload_route(path: &str, policies: impl Serialize) -> Entry {
    let route = Entry(Table::new())
        .set("action", "upload")
        .set("path", path);
    route.set("policies", policies).store("main")
}

pub(crate) fn signed_in(accept: impl Serialize) -> Entry {
    Entry::new("signed_in").set("accept", accept)
}

pub(crate) fn workspace_member() -> Entry {
    Entry::new("workspace_member")
}

/// A rate limit per hour, unless `period` says otherwise.
pub(crate) fn rate_limit() -> Entry {
    Entry::new("rate_limit").period("1h")
}

/// A quota per day in the store `main`, unless `window` and `store` say otherwise.
pub(crate) fn quota() -> Entry {
    Entry::new("quota").window("day").store("main")
}

/// A limit of what is held, in the store `main`, unless `store` says otherwise.
pub(crate) fn storage() -> Entry {
    Entry::new("storage").store("main")
}

pub(crate) fn upload_intent() -> Entry {
    Entry::new("upload_intent")
}

pub(crate) fn expression(allow: &str) -> Entry {
    Entry::new("expression").set("allow", allow)
}

/// A policy that asks the service at `url`.
pub(crate) fn remote_decision(url: &str) -> Entry {
    Entry::new("remote").url(url)
}

/// Tokens that are signed with the tests' shared secret.
pub(crate) fn jwt() -> Entry {
    Entry::new("jwt")
        .set("algorithms", ["HS256"])
        .set("secret", env("TEST_SECRET"))
}

/// Tokens that are signed with a key of the set at `jwks_url`.
pub(crate) fn published_jwt(algorithms: impl Serialize, jwks_url: &str) -> Entry {
    Entry::new("jwt")
        .set("algorithms", algorithms)
        .set("jwks_url", jwks_url)
        .audience(["imgwire-gate"])
}

/// Tokens that are signed with a key that the issuer's discovery document leads to.
pub(crate) fn discovered_jwt(algorithms: impl Serialize, issuer: &str) -> Entry {
    Entry::new("jwt")
        .set("algorithms", algorithms)
        .issuer(issuer)
        .set("discovery", true)
        .audience(["imgwire-gate"])
}

/// Opaque tokens, about which the gate asks the issuer at `url`.
pub(crate) fn introspection(url: &str) -> Entry {
    Entry::new("introspection")
        .url(url)
        .set("client_id", "gate")
        .set("client_secret", env("TEST_SECRET"))
}

/// Sessions of the app at `url`, which gets these cookies and headers.
pub(crate) fn remote_session(url: &str, forward: impl Serialize, subject: &str) -> Entry {
    Entry::new("remote")
        .url(url)
        .set("forward", forward)
        .set("subject", subject)
}

/// Users that a trusted proxy names in the header `subject`.
pub(crate) fn forwarded(subject: &str) -> Entry {
    Entry::new("forwarded").set("subject", subject)
}

/// Sessions that credentials of these identities start.
pub(crate) fn session(exchange: impl Serialize) -> Entry {
    Entry::new("session").set("exchange", exchange)
}
