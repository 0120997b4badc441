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
use super::{document::Reader, files::why_unreadable, secret_text};

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
    let loaded = load_line(reader, source, environment).and_then(|(name, text)| {
        check_length(&name, text.len(), min_bytes)?;
        Ok(text.into())
    });
    report(reader, path, loaded)
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
    let loaded = load_bytes(reader, source, environment, encoding).and_then(|(name, bytes)| {
        check_length(&name, bytes.len(), min_bytes)?;
        Ok(bytes.into())
    });
    report(reader, path, loaded)
}

/// Loads a document, such as a key in PEM or a key set. White space around it does not matter.
pub(crate) fn read_document(
    reader: &mut Reader,
    environment: Environment<'_>,
    path: &str,
    source: &SecretSource,
) -> Option<SecretString> {
    let loaded = load(reader, source, environment).and_then(|(name, bytes)| {
        let text = utf8(&name, bytes)?;
        let text = text.trim_start_matches('\u{feff}').trim();
        check_length(&name, text.len(), 1)?;
        secret_text::check(text).map_err(|fault| format!("{name} {fault}"))?;
        Ok(text.into())
    });
    report(reader, path, loaded)
}

/// Why a secret could not be loaded. Never shows the secret.
struct LoadError {
    message: String,
    /// A file that is missing or empty, perhaps because its volume is not mounted yet.
    is_absent_file: bool,
}

impl From<String> for LoadError {
    fn from(message: String) -> Self {
        Self {
            message,
            is_absent_file: false,
        }
    }
}

fn report<T>(reader: &mut Reader, path: &str, loaded: Result<T, LoadError>) -> Option<T> {
    match loaded {
        Ok(secret) => return Some(secret),
        Err(error) if error.is_absent_file => reader.absent_file(path, error.message),
        Err(error) => reader.fault(path, error.message),
    }
    None
}

fn load_bytes(
    reader: &mut Reader,
    source: &SecretSource,
    environment: Environment<'_>,
    encoding: Option<SecretEncoding>,
) -> Result<(String, Vec<u8>), LoadError> {
    if encoding == Some(SecretEncoding::Raw) {
        let (name, bytes) = load(reader, source, environment)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            secret_text::check_placeholder(text).map_err(|fault| format!("{name} {fault}"))?;
        }
        return Ok((name, bytes));
    }
    let Some(encoding) = encoding else {
        let (name, text) = load_line(reader, source, environment)?;
        return Ok((name, text.into_bytes()));
    };
    let (name, text) = load_text(reader, source, environment)?;
    let bytes = secret_text::decode(&text, encoding).map_err(|fault| format!("{name} {fault}"))?;
    Ok((name, bytes))
}

/// Loads a text without an encoding. In a variable, it must be one line, unless it is a document.
fn load_line(
    reader: &mut Reader,
    source: &SecretSource,
    environment: Environment<'_>,
) -> Result<(String, String), LoadError> {
    let (name, text) = load_text(reader, source, environment)?;
    let is_several = text.contains(['\n', '\r']) && !secret_text::is_document(&text);
    if is_several && matches!(source, SecretSource::Env(_)) {
        return Err(format!(
            "{name} has a line break in it; write the secret in one line, or, if the line break belongs to it, in a file, \
             and here {{ file = \"PATH\" }}"
        )
        .into());
    }
    Ok((name, text))
}

/// Loads a text. A file may end with one line end, which does not belong to the secret.
fn load_text(
    reader: &mut Reader,
    source: &SecretSource,
    environment: Environment<'_>,
) -> Result<(String, String), LoadError> {
    let (name, bytes) = load(reader, source, environment)?;
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
fn load(
    reader: &mut Reader,
    source: &SecretSource,
    environment: Environment<'_>,
) -> Result<(String, Vec<u8>), LoadError> {
    match source {
        SecretSource::Env(name) => {
            let shown = format!("the environment variable `{name}`");
            match environment(name) {
                Some(text) => Ok((shown, text.into_bytes())),
                None if secret_text::is_name(name) => Err(format!("{shown} is not set").into()),
                None => Err(
                    "must be the name of an environment variable, which has the secret; write for example \
                     { env = \"IMGWIRE_API_KEY\" }"
                        .to_owned()
                        .into(),
                ),
            }
        }
        SecretSource::File(path) => {
            let shown = format!("the file `{}`", path.display());
            let absent = |message| LoadError {
                message,
                is_absent_file: true,
            };
            match reader.files.read(path) {
                Ok(bytes) if bytes.is_empty() => Err(absent(format!("{shown} is empty"))),
                Ok(bytes) => Ok((shown, bytes)),
                Err(error) => {
                    let reason = why_unreadable(&error);
                    Err(absent(format!("{shown} cannot be read: {reason}")))
                }
            }
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
