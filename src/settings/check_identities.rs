//! What is wrong within an identity: keys that do not go together, or that need another section.

use std::ops::Range;

use jsonwebtoken::AlgorithmFamily;
use policies::{IdentityName, ServiceUrl};
use serde_spanned::Spanned;

use super::{
    IdentitySettings, IntrospectionSettings, JwtSettings, RemoteSettings, ServerSettings,
    document::{Reader, join},
    identities::{TokenSource, jwt::KeySource},
    load::Named,
};

pub(super) fn check(
    reader: &mut Reader,
    has_session: bool,
    server: Option<&ServerSettings>,
    identity: &Named<IdentityName, IdentitySettings>,
) {
    let path = format!("identities.{}", identity.name);
    let place = identity.place.clone();
    // A key that could not be read is not a missing one.
    let is_whole = !reader.has_fault(&path);
    match &identity.entry {
        Some(IdentitySettings::Jwt(_)) if !is_whole => {}
        Some(IdentitySettings::Jwt(settings)) => jwt(reader, &path, place, settings),
        Some(IdentitySettings::Introspection(settings)) => introspection(reader, &path, settings),
        Some(IdentitySettings::Remote(settings)) => remote(reader, &path, settings),
        Some(IdentitySettings::Session(_)) if !has_session => {
            reader.fault(place, path, "needs the section [session]");
        }
        Some(IdentitySettings::Forwarded(_)) if server.is_some_and(believes_nobody) => {
            let message = "needs `trusted_proxies` in [server]: nobody else is believed";
            reader.fault(place, path, message);
        }
        Some(IdentitySettings::Session(_) | IdentitySettings::Forwarded(_)) | None => {}
    }
}

fn believes_nobody(server: &ServerSettings) -> bool {
    server.trusted_proxies.is_empty()
}

fn jwt(reader: &mut Reader, path: &str, place: Range<usize>, jwt: &JwtSettings) {
    sources(reader, path, &jwt.from);
    audience(reader, path, jwt.audience.as_ref());
    let algorithms = jwt.algorithms.get_ref();
    let key = join(path, "algorithms");
    let Some(first) = algorithms.first() else {
        reader.fault(jwt.algorithms.span(), key, "must name at least one");
        return;
    };
    let found = match jwt.key_sources()[..] {
        [found] => found,
        [] => {
            let message =
                "needs one of `secret`, `public_key`, `jwks`, `jwks_url`, `discovery = true`";
            reader.fault(place, path, message);
            return;
        }
        [first, second, ..] => {
            let (key, message) = (
                join(path, second.key()),
                format!("stands beside `{}`: one of the two is needed", first.key()),
            );
            reader.fault(second.span(), key, message);
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
        reader.fault(jwt.algorithms.span(), key, message);
    } else if let Some(wrong) = algorithms
        .iter()
        .find(|algorithm| is_shared(algorithm.family()) != takes_secret)
    {
        let message = if takes_secret {
            format!("{wrong:?} is verified with a public key")
        } else {
            format!("{wrong:?} is verified with a `secret`")
        };
        reader.fault(found.span(), join(path, found.key()), message);
    }
    match found {
        KeySource::JwksUrl(url) => private(reader, path, "jwks_url", url, jwt.insecure_http),
        KeySource::Discovery(discovery) => match &jwt.issuer {
            None => {
                let message = "needs `issuer`, under which the document is found";
                reader.fault(discovery.span(), join(path, "discovery"), message);
            }
            Some(issuer) => match ServiceUrl::try_from(issuer.get_ref().clone()) {
                Err(fault) => reader.fault(issuer.span(), join(path, "issuer"), fault),
                Ok(url) => {
                    let url = Spanned::new(issuer.span(), url);
                    private(reader, path, "issuer", &url, jwt.insecure_http);
                }
            },
        },
        KeySource::Secret(_) | KeySource::PublicKey(_) | KeySource::Jwks(_) => {}
    }
}

fn introspection(reader: &mut Reader, path: &str, settings: &IntrospectionSettings) {
    sources(reader, path, &settings.from);
    audience(reader, path, settings.audience.as_ref());
    private(reader, path, "url", &settings.url, settings.insecure_http);
}

fn remote(reader: &mut Reader, path: &str, settings: &RemoteSettings) {
    private(reader, path, "url", &settings.url, settings.insecure_http);
    let forward = &settings.forward;
    let fault = if forward.get_ref().is_empty() {
        "must name at least one cookie or header"
    } else if forward.get_ref().contains(&TokenSource::Bearer) {
        "write \"header:authorization\" for the bearer token"
    } else {
        return;
    };
    reader.fault(forward.span(), join(path, "forward"), fault);
}

fn sources(reader: &mut Reader, path: &str, from: &Spanned<Vec<TokenSource>>) {
    if from.get_ref().is_empty() {
        reader.fault(
            from.span(),
            join(path, "from"),
            "must name at least one place",
        );
    }
}

fn audience(reader: &mut Reader, path: &str, audience: Option<&Spanned<Vec<String>>>) {
    if let Some(audience) = audience
        && audience.get_ref().is_empty()
    {
        let key = join(path, "audience");
        reader.fault(audience.span(), key, "must name at least one");
    }
}

/// What credentials or keys travel to or from must be https, except for loopback.
fn private(
    reader: &mut Reader,
    path: &str,
    key: &str,
    url: &Spanned<ServiceUrl>,
    insecure_http: bool,
) {
    if !insecure_http && !url.get_ref().is_private() {
        let message = "would carry credentials or keys over plain http to another machine; write https, or allow it with `insecure_http = true`";
        reader.fault(url.span(), join(path, key), message);
    }
}
