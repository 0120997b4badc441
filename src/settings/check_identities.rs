//! What is wrong within an identity: keys that do not go together, or that need another section.

use jsonwebtoken::AlgorithmFamily;
use policies::{IdentityName, ServiceUrl};

use super::{
    IdentitySettings, IntrospectionSettings, JwtSettings, RemoteSettings, ServerSettings,
    check_accept,
    document::{Reader, join},
    identities::{
        ClaimValues, SessionIdentitySettings, TokenSource,
        issuer::{Issuers, SubjectPrefix},
        jwt::KeySource,
    },
    load::Named,
};

pub(super) fn check(
    reader: &mut Reader,
    has_session: bool,
    server: Option<&ServerSettings>,
    identities: &[Named<IdentityName, IdentitySettings>],
    identity: &Named<IdentityName, IdentitySettings>,
) {
    let path = format!("identities.{}", identity.name);
    // A key that could not be read is not a missing one.
    let is_whole = !reader.has_fault(&path);
    match &identity.entry {
        Some(IdentitySettings::Jwt(_)) if !is_whole => {}
        Some(IdentitySettings::Jwt(settings)) => jwt(reader, &path, settings),
        Some(IdentitySettings::Introspection(settings)) => introspection(reader, &path, settings),
        Some(IdentitySettings::Remote(settings)) => remote(reader, &path, settings),
        Some(IdentitySettings::Session(_)) if !has_session => {
            reader.fault(path, "needs the section [session]");
        }
        Some(IdentitySettings::Session(settings)) => session(reader, &path, settings, identities),
        Some(IdentitySettings::Forwarded(settings)) => {
            literal_prefix(reader, &path, &settings.subject_prefix);
            forwarded(reader, path, server);
        }
        None => {}
    }
}

/// A forwarded identity is believed from trusted proxies only, so there must be some, and not everyone.
fn forwarded(reader: &mut Reader, path: String, server: Option<&ServerSettings>) {
    let Some(server) = server else { return };
    let proxies = &server.trusted_proxies;
    if proxies.is_empty() {
        let message = "needs `trusted_proxies` in [server]: nobody else is believed";
        reader.fault(path, message);
    } else if let Some(network) = proxies.iter().find(|network| network.is_everyone()) {
        reader.warning(path,
            format!(
                "any client can claim to be anyone, because `trusted_proxies` has {}; name the addresses of your proxies only",
                network.0
            ),
        );
    }
}

/// Sessions come from identities that exist and are no sessions themselves.
fn session(
    reader: &mut Reader,
    path: &str,
    settings: &SessionIdentitySettings,
    identities: &[Named<IdentityName, IdentitySettings>],
) {
    let key = join(path, "exchange");
    let exchange = &settings.exchange;
    if exchange.is_empty() {
        reader.fault(&key, "must name at least one identity");
    }
    reader.names(&key, exchange, |name| {
        let identity = identities.iter().find(|identity| identity.name == *name);
        match identity.map(|identity| &identity.entry) {
            None => Some(format!("there is no [identities.{name}]")),
            Some(Some(IdentitySettings::Session(_))) => Some(format!(
                "`{name}` is a session itself, which cannot start another one"
            )),
            Some(_) => None,
        }
    });
    if !reader.has_fault(&key) {
        check_accept::shadowing(reader, &key, exchange, identities);
    }
}

/// No identity can say that a browser does not send cookies by itself.
fn ambient(reader: &mut Reader, path: &str, ambient: bool, sources: &[TokenSource]) {
    let is_cookie = |source: &TokenSource| matches!(source, TokenSource::Cookie(_));
    if !ambient && sources.iter().any(is_cookie) {
        let message = "browsers send cookies by themselves; leave `ambient` out, or read the cookie in an identity of \
                       its own";
        reader.fault(join(path, "ambient"), message);
    }
}

fn jwt(reader: &mut Reader, path: &str, jwt: &JwtSettings) {
    sources(reader, path, &jwt.from);
    ambient(reader, path, jwt.ambient, &jwt.from);
    audience(reader, path, jwt.audience.as_ref());
    let restrictions = [&jwt.required_claims, &jwt.allowed_claims];
    issuer(reader, path, jwt.issuer.as_ref(), restrictions);
    subject_prefix(reader, path, &jwt.subject_prefix, jwt.issuer.as_ref());
    let algorithms = &jwt.algorithms;
    let key = join(path, "algorithms");
    let Some(first) = algorithms.first() else {
        reader.fault(key, "must name at least one");
        return;
    };
    let found = match jwt.key_sources()[..] {
        [found] => found,
        [] => {
            let message =
                "needs one of `secret`, `public_key`, `jwks`, `jwks_url`, `discovery = true`";
            reader.fault(path, message);
            return;
        }
        [first, second, ..] => {
            let (key, message) = (
                join(path, second.key()),
                format!("stands beside `{}`: one of the two is needed", first.key()),
            );
            reader.fault(key, message);
            return;
        }
    };
    let is_shared = |family| family == AlgorithmFamily::Hmac;
    let takes_secret = matches!(found, KeySource::Secret(_));
    let takes_one_key = takes_secret || matches!(found, KeySource::PublicKey(_));
    if takes_one_key
        && algorithms
            .iter()
            .any(|other| other.family() != first.family())
    {
        let message = "must all be of one family, for there is one key";
        reader.fault(key, message);
    } else if let Some(wrong) = algorithms
        .iter()
        .find(|algorithm| is_shared(algorithm.family()) != takes_secret)
    {
        let message = if takes_secret {
            format!("{wrong:?} is verified with a public key")
        } else {
            format!("{wrong:?} is verified with a `secret`")
        };
        reader.fault(join(path, found.key()), message);
    }
    match found {
        KeySource::JwksUrl(url) => private(reader, path, "jwks_url", url, jwt.insecure_http),
        KeySource::Discovery(_) => match &jwt.issuer {
            None => {
                let message = "needs `issuer`, under which the document is found";
                reader.fault(join(path, "discovery"), message);
            }
            Some(issuer) => discovery_issuer(reader, path, issuer, jwt.insecure_http),
        },
        KeySource::Secret(_) | KeySource::PublicKey(_) | KeySource::Jwks(_) => {}
    }
}

/// The discovery document is found under the one literal issuer.
fn discovery_issuer(reader: &mut Reader, path: &str, issuer: &Issuers, insecure_http: bool) {
    let Some(literal) = issuer.literal() else {
        let message = "must be one issuer without `{tid}`, because `discovery` finds the keys under it; write `jwks_url` instead of `discovery`";
        reader.fault(join(path, "issuer"), message);
        return;
    };
    match ServiceUrl::try_from(literal.to_owned()) {
        Err(fault) => reader.fault(join(path, "issuer"), fault),
        Ok(url) => {
            private(reader, path, "issuer", &url, insecure_http);
        }
    }
}

/// An issuer that takes a claim takes the tokens of everyone who can choose that claim.
fn issuer(
    reader: &mut Reader,
    path: &str,
    issuer: Option<&Issuers>,
    restrictions: [&ClaimValues; 2],
) {
    if !issuer.is_some_and(Issuers::take_tid) {
        return;
    }
    let is_restricted = |claims: &ClaimValues| claims.0.contains_key("tid");
    if !restrictions.into_iter().any(is_restricted) {
        let message = "takes every tenant: name yours, for example `allowed_claims = { tid = [\"8a7f...\"] }`";
        reader.fault(join(path, "issuer"), message);
    }
}

fn subject_prefix(
    reader: &mut Reader,
    path: &str,
    prefix: &SubjectPrefix,
    issuer: Option<&Issuers>,
) {
    if prefix.takes_issuer() && issuer.is_none() {
        let message = "`{iss}` needs `issuer`, which says whose tokens are taken";
        reader.fault(join(path, "subject_prefix"), message);
    }
}

/// The prefix of an identity without tokens, which have an `iss`.
fn literal_prefix(reader: &mut Reader, path: &str, prefix: &SubjectPrefix) {
    if prefix.takes_issuer() {
        let message = "`{iss}` is for tokens; write a literal prefix";
        reader.fault(join(path, "subject_prefix"), message);
    }
}

fn introspection(reader: &mut Reader, path: &str, settings: &IntrospectionSettings) {
    sources(reader, path, &settings.from);
    ambient(reader, path, settings.ambient, &settings.from);
    audience(reader, path, settings.audience.as_ref());
    let restrictions = [&settings.required_claims, &settings.allowed_claims];
    issuer(reader, path, settings.issuer.as_ref(), restrictions);
    let prefix = &settings.subject_prefix;
    subject_prefix(reader, path, prefix, settings.issuer.as_ref());
    private(reader, path, "url", &settings.url, settings.insecure_http);
}

fn remote(reader: &mut Reader, path: &str, settings: &RemoteSettings) {
    literal_prefix(reader, path, &settings.subject_prefix);
    private(reader, path, "url", &settings.url, settings.insecure_http);
    let forward = &settings.forward;
    ambient(reader, path, settings.ambient, forward);
    let fault = if forward.is_empty() {
        "must name at least one cookie or header"
    } else if forward.contains(&TokenSource::Bearer) {
        "write \"header:authorization\" for the bearer token"
    } else {
        return;
    };
    reader.fault(join(path, "forward"), fault);
}

fn sources(reader: &mut Reader, path: &str, from: &[TokenSource]) {
    if from.is_empty() {
        reader.fault(join(path, "from"), "must name at least one place");
    }
}

fn audience(reader: &mut Reader, path: &str, audience: Option<&Vec<String>>) {
    if let Some(audience) = audience
        && audience.is_empty()
    {
        let key = join(path, "audience");
        reader.fault(key, "must name at least one");
    }
}

/// What credentials or keys travel to or from must be https, except for loopback.
pub(super) fn private(
    reader: &mut Reader,
    path: &str,
    key: &str,
    url: &ServiceUrl,
    insecure_http: bool,
) {
    if !insecure_http && !url.is_private() {
        let message = "would carry credentials or keys over plain http to another machine; write https, or allow it with `insecure_http = true`";
        reader.fault(join(path, key), message);
    }
}
