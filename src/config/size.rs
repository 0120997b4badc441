//! Sizes of what is kept in memory.

use policies::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

/// A number of bytes, for example `"16KiB"`: at least one, at most 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "ByteCount")]
pub struct Size(usize);

const LARGEST: usize = 64 << 20;

impl Size {
    #[must_use]
    pub const fn from_kib(kib: u16) -> Self {
        Self((kib as usize) << 10)
    }

    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = ByteCount::deserialize(deserializer)?;
        usize::try_from(count.bytes())
            .ok()
            .filter(|bytes| *bytes <= LARGEST)
            .map(Self)
            .ok_or_else(|| D::Error::custom("the size must be at most 64 MiB"))
    }
}
