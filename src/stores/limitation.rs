//! What is wrong with a store that works.

/// What a store that works does not do as it should.
pub struct Limitation {
    /// Of the store, for example `eviction`.
    pub part: &'static str,
    pub reason: String,
    pub remedy: &'static str,
    /// Whether it endangers what the gate promises.
    pub is_degraded: bool,
}
