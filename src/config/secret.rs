//! Secrets: named in the config file, kept elsewhere.

use std::{borrow::Cow, fmt};

pub use policies::SecretSource;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value},
};

use super::document::Reader;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a secret is, or where each of several secrets is that are valid at once.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum SecretSources {
    /// One secret.
    One(SecretSource),
    /// Several secrets, at least one.
    Many(#[schemars(length(min = 1))] Vec<SecretSource>),
}

impl SecretSources {
    #[must_use]
    pub fn as_slice(&self) -> &[SecretSource] {
        match self {
            Self::One(source) => std::slice::from_ref(source),
            Self::Many(sources) => sources,
        }
    }
}

impl<'de> Deserialize<'de> for SecretSources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourcesVisitor;

        impl<'de> Visitor<'de> for SourcesVisitor {
            type Value = SecretSources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env = \"NAME\" }, { file = \"PATH\" } or a list of these")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SecretSources, E> {
                SecretSource::deserialize(value::StrDeserializer::new(text)).map(SecretSources::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSources, A::Error> {
                let map = value::MapAccessDeserializer::new(map);
                SecretSource::deserialize(map).map(SecretSources::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<SecretSources, A::Error> {
                let sources = Vec::deserialize(value::SeqAccessDeserializer::new(seq))?;
                if sources.is_empty() {
                    Err(A::Error::custom("must name at least one secret"))
                } else {
                    Ok(SecretSources::Many(sources))
                }
            }
        }

        deserializer.deserialize_any(SourcesVisitor)
    }
}

/// Loads the secret of the key at `path`, which must have at least `least` bytes, and records what is wrong with it.
pub(super) fn read(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
    least: usize,
) -> Option<SecretString> {
    let loaded = load(source, environment, least);
    loaded.map_err(|message| reader.fault(path, message)).ok()
}

/// Loads a secret, which must have at least `least` bytes. Errors name the source and show nothing of the secret.
pub(crate) fn load(
    from: &SecretSource,
    environment: Environment<'_>,
    least: usize,
) -> Result<SecretString, String> {
    let (source, text) = match from {
        SecretSource::Env(name) => {
            let text = environment(name)
                .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            (format!("the environment variable `{name}`"), text)
        }
        SecretSource::File(path) => {
            let path = path.display();
            let text = std::fs::read_to_string(path.to_string())
                .map_err(|error| format!("the file `{path}` cannot be read: {}", error.kind()))?;
            (format!("the file `{path}`"), text)
        }
    };
    let secret = SecretString::from(
        match from {
            SecretSource::Env(_) => Cow::Borrowed(text.as_str()),
            SecretSource::File(_) => {
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Cow::Borrowed(line.strip_suffix('\r').unwrap_or(line))
            }
        }
        .into_owned(),
    );
    let length = secret.expose_secret().len();
    if length == 0 {
        Err(format!("{source} is empty"))
    } else if length < least {
        Err(format!(
            "{source} is too short: it has {length} bytes, at least {least} are needed"
        ))
    } else {
        Ok(secret)
    }
}
