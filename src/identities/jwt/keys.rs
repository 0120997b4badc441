//! The keys of a `jwt` identity.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use policies::SecretSource;
use secrecy::ExposeSecret as _;

use super::{discovery::Discovery, settings::JwtSettings};
use crate::{
    config::{
        ServiceUrl,
        secret::{SecretSources, is_json_object},
    },
    identities::{
        keys::{
            Key, KeyError, KeySet, KeyTypes, Location, PublishedKeys, key_format, min_secret_bytes,
        },
        kind::BuildContext,
        limits::FailureTracker,
        section::Section,
    },
};

/// The most keys of a secret, because each is tried for a token.
const MAX_SECRET_KEYS: usize = 8;

#[derive(Clone)]
pub(super) enum Keys {
    /// Keys of the config, which ignore a token's `kid`.
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
        let serves = |key: &&Arc<Key>| key.serves(algorithm);
        match self {
            Self::Fixed(keys) => Ok(keys.iter().filter(serves).cloned().collect()),
            Self::Set(set) => Ok(set.find(kid, algorithm)),
            Self::Published(keys) => keys.find(kid, algorithm, failures).await,
        }
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
            KeySource::Discovery => {
                let discovery = &self.discovery;
                discovery.location(self.issuer.as_ref(), self.insecure_http, section)
            }
            _ => None,
        };
        if section.has_fault("") {
            return None;
        }
        let keys = match source {
            KeySource::Secret(sources) => self.load_secrets(sources, section)?,
            KeySource::PublicKey(source) => {
                let pem = section.document("public_key", source)?;
                let key = Key::from_pem(pem.expose_secret(), &self.algorithms);
                let key = key.map_err(|message| section.fault("public_key", message));
                Keys::Fixed(vec![Arc::new(key.ok()?)])
            }
            KeySource::Jwks(source) => self.load_set(source, section)?,
            KeySource::JwksUrl(url) => {
                return Some(LoadedKeys::Published(Location::Jwks(url.clone())));
            }
            KeySource::Discovery => return discovered.map(LoadedKeys::Published),
        };
        Some(LoadedKeys::Local(keys))
    }

    /// Loads the secrets, each of which may be text, encoded, or a JSON Web Key.
    fn load_secrets(&self, sources: &SecretSources, section: &mut Section<'_>) -> Option<Keys> {
        let min_bytes = min_secret_bytes(&self.algorithms);
        // Collected first, so that every secret reports its faults.
        let loaded: Vec<_> = sources
            .as_slice()
            .iter()
            .map(|source| section.secret_bytes("secret", source, self.secret_encoding, min_bytes))
            .collect();
        let mut keys = Vec::new();
        for secret in loaded.into_iter().collect::<Option<Vec<_>>>()? {
            let secret = secret.expose_secret();
            let parsed = match (self.secret_encoding, std::str::from_utf8(secret)) {
                (None, Ok(text)) if is_json_object(text) => self.secret_keys(text),
                _ => match key_format(secret) {
                    Some(format) => Err(format!(
                        "is a key in {format}, not a shared secret; write `public_key`, which takes PEM"
                    )),
                    None => Ok(vec![Arc::new(Key::from_secret(secret, &self.algorithms))]),
                },
            };
            match parsed {
                Ok(parsed) => keys.extend(parsed),
                Err(message) => section.fault("secret", message),
            }
        }
        (!section.has_fault("secret")).then_some(Keys::Fixed(keys))
    }

    /// Reads a secret that is a JSON Web Key, or a set of them.
    fn secret_keys(&self, text: &str) -> Result<Vec<Arc<Key>>, String> {
        let types = KeyTypes::PublicAndSecret;
        let set = KeySet::parse(text.as_bytes(), &self.algorithms, types, None)
            .map_err(|reason| format!("begins like a JSON Web Key, but {reason}"))?;
        if let Some(skipped) = set.skipped().reported.first() {
            Err(skipped.to_string())
        } else if set.is_empty() {
            Err("has no key".to_owned())
        } else if set.len() > MAX_SECRET_KEYS {
            Err(format!(
                "has more than {MAX_SECRET_KEYS} keys; write it as `jwks`"
            ))
        } else {
            Ok(set.keys().cloned().collect())
        }
    }

    /// Loads a key set of the config. `check` warns of the keys that cannot be used.
    fn load_set(&self, source: &SecretSource, section: &mut Section<'_>) -> Option<Keys> {
        const KEY: &str = "jwks";

        let text = section.document(KEY, source)?;
        let text = text.expose_secret().as_bytes();
        let set = KeySet::parse(text, &self.algorithms, KeyTypes::PublicAndSecret, None);
        let reject = |reason| {
            let message =
                format!("{reason}; write a JSON Web Key Set, which begins with {{ \"keys\": [");
            section.fault(KEY, message);
        };
        let set = set.map_err(reject).ok()?;
        let skipped = set.skipped().reported.iter().map(ToString::to_string);
        if !set.is_empty() {
            skipped.for_each(|key| section.warning(KEY, key));
            return Some(Keys::Set(set));
        }
        let reasons: Vec<_> = skipped.take(3).collect();
        let message = match reasons.is_empty() {
            true => "has no key".to_owned(),
            false => format!("has no usable key: {}", reasons.join("; ")),
        };
        section.fault(KEY, message);
        None
    }

    fn key_source(&self, section: &mut Section<'_>) -> Option<KeySource<'_>> {
        let named = [
            self.secret.as_ref().map(KeySource::Secret),
            self.public_key.as_ref().map(KeySource::PublicKey),
            self.jwks.as_ref().map(KeySource::Jwks),
            self.jwks_url.as_ref().map(KeySource::JwksUrl),
            (self.discovery != Discovery::Off).then_some(KeySource::Discovery),
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

    /// Checks that the algorithms fit each other and the keys. The keys of a file each have their own type.
    fn check_algorithms(&self, source: KeySource<'_>, section: &mut Section<'_>) {
        let takes_secret = matches!(source, KeySource::Secret(_));
        let takes_one_key = takes_secret || matches!(source, KeySource::PublicKey(_));
        let family = self.algorithms.first().map(|first| first.family());
        let mut algorithms = self.algorithms.iter();
        let is_wrong =
            |algorithm: &&Algorithm| (algorithm.family() == AlgorithmFamily::Hmac) != takes_secret;
        let other = algorithms
            .clone()
            .find(|other| Some(other.family()) != family);
        if let Some((first, other)) = self.algorithms.first().zip(other).filter(|_| takes_one_key) {
            let message = format!(
                "{first:?} and {other:?} need different keys, and there is only one; remove one of them, or write a second \
                 identity"
            );
            section.fault("algorithms", message);
        } else if !matches!(source, KeySource::Jwks(_))
            && let Some(wrong) = algorithms.find(is_wrong)
        {
            let message = if takes_secret {
                format!(
                    "{wrong:?} is not signed with a secret; write `public_key`, `jwks_url` or `discovery = true` instead, or algorithms = [\"HS256\"]"
                )
            } else {
                format!(
                    "{wrong:?} is signed with a secret, which no issuer publishes; write secret = {{ env = \"NAME\" }} instead, or another algorithm such as RS256"
                )
            };
            section.fault(source.key(), message);
        }
        if self.secret_encoding.is_some() && !takes_secret {
            section.fault("secret_encoding", "is only for `secret`");
        }
    }
}
