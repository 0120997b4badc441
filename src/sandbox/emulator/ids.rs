//! Ids of resources: UUIDs that count.

/// The id of the resource `number` of a `kind`.
pub(super) fn id(kind: u8, number: usize) -> String {
    format!("00000000-0000-4000-8{kind:03}-{number:012}")
}

/// The number in an id.
pub(super) fn number(id: &str) -> Option<usize> {
    id.rsplit('-').next()?.parse().ok()
}
