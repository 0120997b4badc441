//! Secrets. The config file names where they are, and never contains them. Errors name the source, and never show the
//! secret.

use std::fmt;

pub use policies::SecretSource;
use schemars::JsonSchema;
use secrecy::{SecretSlice, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value},
};

pub use super::secret_text::SecretEncoding;
pub(crate) use super::secret_text::is_json_object;
use super::{document::Reader, secret_text};

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

/// Loads the secret that the key at `path` names. Records a fault if it cannot be read, is shorter than `min_bytes`, or is
/// not what it should be.
pub(crate) fn read(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
    min_bytes: usize,
) -> Option<SecretString> {
    let loaded = load_text(source, environment).and_then(|(name, text)| {
        check_length(&name, text.len(), min_bytes)?;
        Ok(text.into())
    });
    loaded.map_err(|message| reader.fault(path, message)).ok()
}

/// Like [`read`], for a secret that may have an encoding.
pub(crate) fn read_bytes(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
    encoding: Option<SecretEncoding>,
    min_bytes: usize,
) -> Option<SecretSlice<u8>> {
    let loaded = load_bytes(source, environment, encoding).and_then(|(name, bytes)| {
        check_length(&name, bytes.len(), min_bytes)?;
        Ok(bytes.into())
    });
    loaded.map_err(|message| reader.fault(path, message)).ok()
}

/// Loads a document, such as a key in PEM or a key set. White space around it does not matter.
pub(crate) fn read_document(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
) -> Option<SecretString> {
    let loaded = load(source, environment).and_then(|(name, bytes)| {
        let text = utf8(&name, bytes)?;
        let text = text.trim_start_matches('\u{feff}').trim();
        check_length(&name, text.len(), 1)?;
        secret_text::check(text).map_err(|fault| format!("{name} {fault}"))?;
        Ok(text.into())
    });
    loaded.map_err(|message| reader.fault(path, message)).ok()
}

fn load_bytes(
    source: &SecretSource,
    environment: Environment<'_>,
    encoding: Option<SecretEncoding>,
) -> Result<(String, Vec<u8>), String> {
    if encoding == Some(SecretEncoding::Raw) {
        let (name, bytes) = load(source, environment)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            secret_text::check_placeholder(text).map_err(|fault| format!("{name} {fault}"))?;
        }
        return Ok((name, bytes));
    }
    let (name, text) = load_text(source, environment)?;
    let bytes = match encoding {
        None => Ok(text.into_bytes()),
        Some(encoding) => secret_text::decode(&text, encoding),
    };
    let bytes = bytes.map_err(|fault| format!("{name} {fault}"))?;
    Ok((name, bytes))
}

/// Loads a text. A file may end with one line end, which does not belong to the secret.
fn load_text(
    source: &SecretSource,
    environment: Environment<'_>,
) -> Result<(String, String), String> {
    let (name, bytes) = load(source, environment)?;
    let mut text = utf8(&name, bytes)?;
    if matches!(source, SecretSource::File(_)) && text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    check_length(&name, text.len(), 1)?;
    secret_text::check(&text).map_err(|fault| format!("{name} {fault}"))?;
    Ok((name, text))
}

/// Returns what the source is called in messages, and its bytes.
fn load(source: &SecretSource, environment: Environment<'_>) -> Result<(String, Vec<u8>), String> {
    match source {
        SecretSource::Env(name) => {
            let shown = format!("the environment variable `{name}`");
            let text = environment(name).ok_or_else(|| format!("{shown} is not set"))?;
            Ok((shown, text.into_bytes()))
        }
        SecretSource::File(path) => {
            let shown = format!("the file `{}`", path.display());
            let bytes = std::fs::read(path)
                .map_err(|error| format!("{shown} cannot be read: {}", error.kind()))?;
            Ok((shown, bytes))
        }
    }
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{name} is not text in UTF-8"))
}

fn check_length(name: &str, bytes: usize, min_bytes: usize) -> Result<(), String> {
    if bytes == 0 {
        Err(format!("{name} is empty"))
    } else if bytes < min_bytes {
        Err(format!(
            "{name} is too short: it must have at least {min_bytes} bytes and has {bytes}"
        ))
    } else {
        Ok(())
    }
}
