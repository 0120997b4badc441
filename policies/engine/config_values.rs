//! Values of the config file: lengths of time, sizes, and where secrets and services are.

use std::{borrow::Cow, fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::similar;

/// A length of time as the config writes it, for example `"250ms"`, `"5s"` or `"24h"`: at least a millisecond and at
/// most 3660 days, which are ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3660 * 24 * 60 * 60);

impl Interval {
    /// Creates an interval of milliseconds, for defaults. `millis` must not be 0.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Self {
        Self(Duration::from_millis(millis as u64))
    }

    /// Creates an interval of seconds, for defaults. `seconds` must not be 0.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds as u64))
    }

    /// Returns the length of time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let length = humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is not a duration; {}",
                suggest(
                    &text,
                    &[
                        "ms", "s", "sec", "m", "min", "h", "hour", "hours", "d", "day", "days",
                        "minutes", "seconds"
                    ]
                )
                .unwrap_or_else(|| {
                    "write for example \"250ms\", \"5s\", \"1m\" or \"24h\"".to_owned()
                })
            ))
        })?;
        if length.is_zero() {
            Err(D::Error::custom("the duration must be more than zero"))
        } else if length < SHORTEST {
            Err(D::Error::custom("the duration must be at least 1ms"))
        } else if length > LONGEST {
            Err(D::Error::custom("the duration must be at most 3660 days"))
        } else {
            Ok(Self(length))
        }
    }
}

/// Suggests the unit that was probably meant.
fn suggest(text: &str, units: &[&str]) -> Option<String> {
    let text = text.trim();
    let digits = text
        .find(|char: char| !char.is_ascii_digit())
        .filter(|end| *end > 0)?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let initial = || {
        units.iter().find(|known| {
            known.len() == 2
                && unit.len() > 1
                && known[..1].eq_ignore_ascii_case(unit.get(..1).unwrap_or_default())
        })
    };
    let unit = similar(unit, units).or_else(|| initial().copied())?;
    Some(format!("did you mean \"{number}{unit}\"?"))
}

/// A number per period, as the config writes it: `{ limit = 120, period = "1m" }`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "limit": 120, "period": "1m" }]))]
pub(crate) struct Frequency {
    /// The number of attempts that may come at once, and that return in each period.
    pub(crate) limit: NonZeroU32,
    /// The length of a period.
    pub(crate) period: Interval,
}

/// A number of bytes as the config writes it, for example `"16KiB"` or `"10MB"`: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    /// Creates a number of bytes, for defaults. `bytes` must not be 0.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match parse_size(&text).map_err(D::Error::custom)? {
            0 => Err(D::Error::custom("the size must be more than zero")),
            size => Ok(Self(size)),
        }
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size: Result<bytesize::ByteSize, _> = text.parse();
    size.map(|size| size.as_u64()).map_err(|_| {
        let units = ["B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"];
        let write = suggest(text, &units)
            .unwrap_or_else(|| "write for example \"16KiB\" or \"10MB\"".to_owned());
        format!("`{text}` is not a size; {write}")
    })
}

/// An amount of bytes as the config writes it, for example `"5GB"` or `5000000000`. It may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteAmount(u64);

impl ByteAmount {
    /// Creates an amount of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

/// With the largest unit that shows all of it.
impl fmt::Display for ByteAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 8] = [
            (1 << 40, "TiB"),
            (1_000_000_000_000, "TB"),
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1000, "kB"),
        ];
        let mut units = UNITS.iter().filter(|_| self.0 > 0);
        let unit = units.find(|(unit, _)| self.0.is_multiple_of(*unit));
        let (unit, name) = unit.unwrap_or(&(1, "B"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl<'de> Deserialize<'de> for ByteAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;

        impl Visitor<'_> for AmountVisitor {
            type Value = ByteAmount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"5GB\", or a number of bytes")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ByteAmount, E> {
                let bytes = u64::try_from(number);
                let bytes = bytes.map_err(|_| E::custom("the size must not be negative"))?;
                Ok(ByteAmount(bytes))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ByteAmount, E> {
                Ok(ByteAmount(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteAmount, E> {
                ByteAmount::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for ByteAmount {
    fn schema_name() -> Cow<'static, str> {
        "ByteAmount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size, for example \"5GB\" or 5000000000",
            "anyOf": [
                { "type": "string", "title": "a size", "examples": ["5GB"] },
                { "type": "integer", "format": "uint64", "minimum": 0 },
            ],
        })
    }
}

impl JsonSchema for ByteCount {
    fn schema_name() -> Cow<'static, str> {
        "ByteCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "a size",
            "examples": ["5MB", "16KiB"],
            "description": "A number of bytes, for example \"16KiB\" or \"10MB\"",
        })
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "a duration",
            "examples": ["60s", "24h"],
            "description": "A length of time, for example \"250ms\", \"5s\", \"1m\" or \"24h\"",
            "pattern": "^\\s*(\\d+\\s*[A-Za-zµ]+\\s*)+$",
        })
    }
}

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
                let found = match (table.env, table.file) {
                    (Some(name), None) => return Ok(SecretSource::Env(name)),
                    (None, Some(path)) => return Ok(SecretSource::File(path)),
                    (Some(_), Some(_)) => "has both `env` and `file`",
                    (None, None) => "names no source",
                };
                Err(serde::de::Error::custom(format!(
                    "{found}; write {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
                )))
            }
        }

        deserializer.deserialize_any(SourceVisitor)
    }
}

/// The URL of a service, or a template for one, as the config writes it.
///
/// The program that builds the policies parses it: when it checks the config, by [`ServiceCall`](crate::ServiceCall),
/// and in its [`Ports`](crate::Ports). `Debug` hides the text, because it may contain a password.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(description = "The URL of a service.")]
#[schemars(extend("title" = "a URL", "examples" = ["https://app.example.com/{workspace}/{user}"]))]
pub struct Endpoint(String);

impl Endpoint {
    /// Returns the text, unchanged and unchecked.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}
