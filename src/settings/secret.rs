//! Secrets: named in the config file, kept elsewhere.

use std::{borrow::Cow, fmt, path::PathBuf};

use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a secret is: `{ env = "NAME" }` or `{ file = "/run/secrets/name" }`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum SecretSource {
    /// In an environment variable.
    Env(String),
    /// In a file; a trailing newline is dropped.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "must be { env = \"NAME\" } or { file = \"PATH\" }";

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            env: Option<String>,
            file: Option<PathBuf>,
        }

        struct SourceVisitor;

        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = SecretSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env = \"NAME\" } or { file = \"PATH\" }")
            }

            // Serde's own message would show the text.
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<SecretSource, E> {
                Err(E::custom(format!(
                    "a secret is never written here: {EXPECTED}"
                )))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                match (table.env, table.file) {
                    (Some(name), None) => Ok(SecretSource::Env(name)),
                    (None, Some(path)) => Ok(SecretSource::File(path)),
                    _ => Err(serde::de::Error::custom(EXPECTED)),
                }
            }
        }

        deserializer.deserialize_any(SourceVisitor)
    }
}

impl SecretSource {
    /// Fetches the secret, which must have at least `least` bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that name the source and show nothing of the secret.
    pub(super) fn load(
        &self,
        environment: Environment<'_>,
        least: usize,
    ) -> Result<SecretString, String> {
        let (source, text) = match self {
            Self::Env(name) => {
                let text = environment(name)
                    .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
                (format!("the environment variable `{name}`"), text)
            }
            Self::File(path) => {
                let path = path.display();
                let text = std::fs::read_to_string(path.to_string()).map_err(|error| {
                    format!("the file `{path}` cannot be read: {}", error.kind())
                })?;
                (format!("the file `{path}`"), text)
            }
        };
        let secret = SecretString::from(
            match self {
                Self::Env(_) => Cow::Borrowed(text.as_str()),
                Self::File(_) => {
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
}
