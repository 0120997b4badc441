//! Where a secret is stored. The config never contains the secret itself.

use std::{fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// The place of a secret: `{ env = "NAME" }` or `{ file = "/run/secrets/name" }`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum SecretSource {
    /// The environment variable of this name.
    Env(String),
    /// The file at this path. A trailing newline is dropped.
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
                Err(E::custom(
                    "a secret must not be written in the config; write { env = \"NAME\" } or { file = \"PATH\" }",
                ))
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
