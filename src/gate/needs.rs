//! What the policies of the routes depend on.

use policies::{IdentityName, StoreName, StoreUse};

/// What a policy of a route depends on.
#[derive(Debug)]
pub struct Need {
    pub of: Dependency,
    /// Whether requests fail without it. Otherwise `on_failure` or `mode = "observe"` covers the policy.
    pub is_required: bool,
}

#[derive(Debug)]
pub enum Dependency {
    Store(StoreName, StoreUse),
    /// One of these identities.
    Identities(Vec<AcceptedIdentity>),
}

#[derive(Clone, Debug)]
pub struct AcceptedIdentity {
    pub name: IdentityName,
    /// The store of its sessions.
    pub sessions: Option<StoreName>,
}
