//! A limit of storage that an upload would exceed.

use strum::IntoStaticStr;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum StorageUnit {
    /// Bytes.
    Bytes,
    /// Images.
    Images,
    /// Open uploads.
    #[strum(serialize = "open uploads")]
    Open,
}

/// A limit of `storage` that an upload would exceed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} uses {used} of {limit} {}{}{}", <&str>::from(*unit),
    asked.map(|asked| format!(", and the file has {asked}")).unwrap_or_default(),
    note.as_ref().map(|note| format!("; {note}")).unwrap_or_default())]
pub struct StorageFull {
    /// What is used up.
    pub unit: StorageUnit,
    /// How much is used.
    pub used: u64,
    /// How much may be used.
    pub limit: u64,
    /// The size of the file, if bytes are used up.
    pub asked: Option<u64>,
    /// The counter, by what it counts, for example `workspace=ws_1`.
    pub key: String,
    /// Why the default limit applies, if the limit depends on a claim.
    pub note: Option<String>,
}
