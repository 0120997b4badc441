//! Sizes as the config writes them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A number of bytes, for example `"16KiB"` or `"10MB"`: at least one, at most 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(usize);

const LARGEST: usize = 64 << 20;

impl Size {
    /// So many KiB, for defaults.
    #[must_use]
    pub const fn from_kib(kib: u16) -> Self {
        Self((kib as usize) << 10)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let size: bytesize::ByteSize = text.parse().map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no size; write for example \"16KiB\" or \"10MB\""
            ))
        })?;
        usize::try_from(size.as_u64())
            .ok()
            .filter(|bytes| (1..=LARGEST).contains(bytes))
            .map(Self)
            .ok_or_else(|| D::Error::custom("the size must be between 1 byte and 64 MiB"))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number of bytes, for example \"16KiB\" or \"10MB\"",
        })
    }
}
