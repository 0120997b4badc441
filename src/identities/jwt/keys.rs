//! The keys of a `jwt` identity: where the config has them, and how they are found.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use policies::SecretSource;
use secrecy::ExposeSecret as _;

use super::settings::JwtSettings;
use crate::{
    config::{ServiceUrl, secret::SecretSources},
    identities::{
        keys::{Key, KeySet, Location, NoKeys, PublishedKeys, least_secret},
        kind::BuildContext,
        limits::Attempt,
        section::Section,
    },
};

/// The keys of an identity.
#[derive(Clone)]
pub(super) enum Keys {
    /// Keys that the config names, whatever a token's `kid` says: each once for each algorithm.
    Fixed(Vec<Arc<Key>>),
    /// A set from a file.
    Set(KeySet),
    /// A set that the issuer publishes.
    Published(Arc<PublishedKeys>),
}

impl Keys {
    /// The keys that can have signed a token with this `kid` and this algorithm, which is a configured one.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        attempt: &Attempt<'_>,
    ) -> Result<Vec<Arc<Key>>, NoKeys> {
        let fitting = |key: &&Arc<Key>| key.algorithm() == algorithm;
        Ok(match self {
            Self::Fixed(keys) => keys.iter().filter(fitting).cloned().collect(),
            Self::Set(set) => set.find(kid, algorithm).cloned().into_iter().collect(),
            Self::Published(keys) => {
                let found = keys.find(kid, algorithm, attempt).await?;
                found.into_iter().collect()
            }
        })
    }
}

/// The keys that the config has, or where the issuer publishes them.
pub(super) enum LoadedKeys {
    Here(Keys),
    Published(Location),
}

impl LoadedKeys {
    /// The keys of a running identity. Those that an earlier identity fetched from the same place are kept.
    pub(super) fn build(&self, algorithms: &[Algorithm], context: &BuildContext<'_>) -> Keys {
        let location = match self {
            Self::Here(keys) => return keys.clone(),
            Self::Published(location) => location,
        };
        let earlier = context.earlier.and_then(|earlier| earlier.published_keys());
        let same = earlier.filter(|keys| keys.are_of(location, algorithms));
        Keys::Published(same.cloned().unwrap_or_else(|| {
            Arc::new(PublishedKeys::new(
                context.name.clone(),
                location.clone(),
                algorithms.to_vec(),
                context.outbound,
            ))
        }))
    }
}

/// Where the config says that the keys are; exactly one of five.
#[derive(Clone, Copy)]
enum KeySource<'a> {
    Secret(&'a SecretSources),
    PublicKey(&'a SecretSource),
    Jwks(&'a SecretSource),
    JwksUrl(&'a ServiceUrl),
    Discovery,
}

impl KeySource<'_> {
    /// Its key in the config.
    fn key(self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::PublicKey(_) => "public_key",
            Self::Jwks(_) => "jwks",
            Self::JwksUrl(_) => "jwks_url",
            Self::Discovery => "discovery",
        }
    }
}

impl JwtSettings {
    /// Checks and loads the keys. No key is loaded if the table has a fault.
    pub(super) fn load_keys(&self, section: &mut Section<'_>) -> Option<LoadedKeys> {
        let source = self.key_source(section)?;
        self.check_algorithms(source, section);
        if let KeySource::JwksUrl(url) = source {
            section.check_private("jwks_url", url, self.insecure_http);
        }
        let discovered = match source {
            KeySource::Discovery => self.discovery(section),
            _ => None,
        };
        if section.has_fault("") {
            return None;
        }
        let key = source.key();
        let loaded = match source {
            KeySource::Secret(sources) => {
                let least = least_secret(&self.algorithms);
                // Every secret is loaded, so that every fault is found.
                let secrets: Vec<_> = sources
                    .as_slice()
                    .iter()
                    .map(|source| section.secret(key, source, least))
                    .collect();
                let secrets = secrets.into_iter().collect::<Option<Vec<_>>>()?;
                let keys = secrets.iter();
                let keys = keys.flat_map(|secret| Key::from_secret(secret, &self.algorithms));
                Ok(Keys::Fixed(keys.collect()))
            }
            KeySource::PublicKey(source) => {
                let pem = section.secret(key, source, 1)?;
                Key::from_pem(&pem, &self.algorithms).map(Keys::Fixed)
            }
            KeySource::Jwks(source) => {
                let text = section.secret(key, source, 1)?;
                let text = text.expose_secret().as_bytes();
                match KeySet::parse(text, &self.algorithms, None) {
                    Ok((set, _)) if set.is_empty() => Err("has no key of use".to_owned()),
                    Ok((set, _)) => Ok(Keys::Set(set)),
                    Err(reason) => Err(reason.to_owned()),
                }
            }
            KeySource::JwksUrl(url) => {
                return Some(LoadedKeys::Published(Location::Jwks(url.clone())));
            }
            KeySource::Discovery => return discovered.map(LoadedKeys::Published),
        };
        loaded
            .map_err(|message| section.fault(key, message))
            .ok()
            .map(LoadedKeys::Here)
    }

    /// The one source of keys that the config must name.
    fn key_source(&self, section: &mut Section<'_>) -> Option<KeySource<'_>> {
        let named = [
            self.secret.as_ref().map(KeySource::Secret),
            self.public_key.as_ref().map(KeySource::PublicKey),
            self.jwks.as_ref().map(KeySource::Jwks),
            self.jwks_url.as_ref().map(KeySource::JwksUrl),
            (self.discovery == Some(true)).then_some(KeySource::Discovery),
        ];
        let mut named = named.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(found), None) => return Some(found),
            (Some(first), Some(second)) => {
                let message = format!("stands beside `{}`: one of the two is needed", first.key());
                section.fault(second.key(), message);
            }
            (None, _) => {
                let message =
                    "needs one of `secret`, `public_key`, `jwks`, `jwks_url`, `discovery = true`";
                section.fault("", message);
            }
        }
        None
    }

    /// Checks that the algorithms go with each other and with the keys.
    fn check_algorithms(&self, source: KeySource<'_>, section: &mut Section<'_>) {
        let family = self.algorithms.first().map(|first| first.family());
        let takes_secret = matches!(source, KeySource::Secret(_));
        let takes_one_key = takes_secret || matches!(source, KeySource::PublicKey(_));
        let mut algorithms = self.algorithms.iter();
        let is_wrong =
            |algorithm: &&Algorithm| (algorithm.family() == AlgorithmFamily::Hmac) != takes_secret;
        if takes_one_key
            && algorithms
                .clone()
                .any(|other| Some(other.family()) != family)
        {
            let message = "must all be of one family, for there is one key";
            section.fault("algorithms", message);
        } else if let Some(wrong) = algorithms.find(is_wrong) {
            let message = if takes_secret {
                format!("{wrong:?} is verified with a public key")
            } else {
                format!("{wrong:?} is verified with a `secret`")
            };
            section.fault(source.key(), message);
        }
    }

    /// Where the discovery document is: under the one literal issuer.
    fn discovery(&self, section: &mut Section<'_>) -> Option<Location> {
        let Some(issuers) = &self.issuer else {
            let message = "needs `issuer`, under which the document is found";
            section.fault("discovery", message);
            return None;
        };
        let Some(issuer) = issuers.literal() else {
            let message = "must be one issuer without `{tid}`, because `discovery` finds the keys under it; write `jwks_url` instead of `discovery`";
            section.fault("issuer", message);
            return None;
        };
        match ServiceUrl::try_from(issuer.to_owned()) {
            Err(fault) => section.fault("issuer", fault),
            Ok(url) => section.check_private("issuer", &url, self.insecure_http),
        }
        Some(Location::Discovery {
            issuer: issuer.to_owned(),
            insecure_http: self.insecure_http,
        })
    }
}
