//! Secrets. The config file names where they are, and never contains them.

use std::fmt;

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

/// The source of a secret, or a list of sources if several secrets are valid at the same time.
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

/// Loads the secret that the key at `path` names. Records a fault if it cannot be read or is shorter than `min_bytes`.
pub(crate) fn read(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
    min_bytes: usize,
) -> Option<SecretString> {
    let loaded = load(source, environment, min_bytes);
    loaded.map_err(|message| reader.fault(path, message)).ok()
}

/// Errors name the source, and never show the secret.
fn load(
    from: &SecretSource,
    environment: Environment<'_>,
    min_bytes: usize,
) -> Result<SecretString, String> {
    let (source, secret) = match from {
        SecretSource::Env(name) => {
            let source = format!("the environment variable `{name}`");
            let text = environment(name).ok_or_else(|| format!("{source} is not set"))?;
            (source, SecretString::from(text))
        }
        SecretSource::File(path) => {
            let source = format!("the file `{}`", path.display());
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{source} cannot be read: {}", error.kind()))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            (source, line.strip_suffix('\r').unwrap_or(line).into())
        }
    };
    let length = secret.expose_secret().len();
    if length == 0 {
        Err(format!("{source} is empty"))
    } else if length < min_bytes {
        Err(format!(
            "{source} is too short: it must have at least {min_bytes} bytes and has {length}"
        ))
    } else {
        Ok(secret)
    }
}
