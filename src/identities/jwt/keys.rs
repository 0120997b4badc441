//! The keys of a `jwt` identity.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use policies::SecretSource;
use secrecy::ExposeSecret as _;

use super::settings::JwtSettings;
use crate::{
    config::{ServiceUrl, secret::SecretSources},
    identities::{
        keys::{Key, KeyError, KeySet, Location, PublishedKeys, min_secret_bytes},
        kind::BuildContext,
        limits::FailureTracker,
        section::Section,
    },
};

#[derive(Clone)]
pub(super) enum Keys {
    /// Keys of the config, which ignore a token's `kid`. Each key occurs once per algorithm.
    Fixed(Vec<Arc<Key>>),
    /// A set of the config.
    Set(KeySet),

    Published(Arc<PublishedKeys>),
}

impl Keys {
    /// Returns the keys that may have signed a token with this `kid` and this algorithm, which is one of the config.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        failures: &FailureTracker<'_>,
    ) -> Result<Vec<Arc<Key>>, KeyError> {
        let has_algorithm = |key: &&Arc<Key>| key.algorithm() == algorithm;
        Ok(match self {
            Self::Fixed(keys) => keys.iter().filter(has_algorithm).cloned().collect(),
            Self::Set(set) => set.find(kid, algorithm).cloned().into_iter().collect(),
            Self::Published(keys) => {
                let found = keys.find(kid, algorithm, failures).await?;
                found.into_iter().collect()
            }
        })
    }
}

/// The keys of the config, or where the issuer publishes them.
pub(super) enum LoadedKeys {
    Local(Keys),
    Published(Location),
}

impl LoadedKeys {
    /// Builds the keys of an identity, and reuses those that were fetched from the same location before a reload.
    pub(super) fn build(&self, algorithms: &[Algorithm], context: &BuildContext<'_>) -> Keys {
        let location = match self {
            Self::Local(keys) => return keys.clone(),
            Self::Published(location) => location,
        };
        let previous = context
            .previous
            .and_then(|previous| previous.published_keys());
        let same = previous.filter(|keys| keys.are_from(location, algorithms));
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

/// Where the keys are. The config must have exactly one.
#[derive(Clone, Copy)]
enum KeySource<'a> {
    Secret(&'a SecretSources),
    PublicKey(&'a SecretSource),
    Jwks(&'a SecretSource),
    JwksUrl(&'a ServiceUrl),
    Discovery,
}

impl KeySource<'_> {
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
    /// Checks the settings and loads the keys. Loads nothing if the table has a fault.
    pub(super) fn load_keys(&self, section: &mut Section<'_>) -> Option<LoadedKeys> {
        let source = self.key_source(section)?;
        self.check_algorithms(source, section);
        if let KeySource::JwksUrl(url) = source {
            section.check_https("jwks_url", url, self.insecure_http);
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
                let min_bytes = min_secret_bytes(&self.algorithms);
                // Collected first, so that every secret reports its faults.
                let secrets: Vec<_> = sources
                    .as_slice()
                    .iter()
                    .map(|source| section.secret(key, source, min_bytes))
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
                    Ok((set, _)) if set.is_empty() => Err("has no usable key".to_owned()),
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
            .map(LoadedKeys::Local)
    }

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
                let message = format!("conflicts with `{}`; write only one of them", first.key());
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

    /// Checks that the algorithms fit each other and the keys.
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
            let message = "must all be of one family, because there is only one key";
            section.fault("algorithms", message);
        } else if let Some(wrong) = algorithms.find(is_wrong) {
            let message = if takes_secret {
                format!("{wrong:?} needs a public key")
            } else {
                format!("{wrong:?} needs a `secret`")
            };
            section.fault(source.key(), message);
        }
    }

    /// Returns the location of the discovery document, which is under the issuer.
    fn discovery(&self, section: &mut Section<'_>) -> Option<Location> {
        let Some(issuers) = &self.issuer else {
            let message = "needs `issuer`, under which the document is";
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
            Ok(url) => section.check_https("issuer", &url, self.insecure_http),
        }
        Some(Location::Discovery {
            issuer: issuer.to_owned(),
            insecure_http: self.insecure_http,
        })
    }
}
