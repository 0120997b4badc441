//! What the operator should know of a store that works.

pub struct Remark {
    /// Of the store, for example `eviction`.
    pub part: &'static str,
    pub text: String,
    /// `None` if nothing is wrong.
    pub remedy: Option<&'static str>,
    /// Whether it endangers what the gate promises.
    pub is_degraded: bool,
}
