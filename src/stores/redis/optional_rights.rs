//! Rights by which the gate learns more of a server, and which it can do without.

/// A right that the gate can do without.
pub(super) struct OptionalRight {
    pub(super) name: &'static str,
    pub(super) consequence: &'static str,
    pub(super) remedy: &'static str,
}

pub(super) const INFO: OptionalRight = OptionalRight {
    name: "+info",
    consequence: "the gate cannot see whether the server may evict keys, or has restarted",
    remedy: "allow the user in `url` to run INFO: `ACL SETUSER gate +info`",
};

pub(super) const ROLE: OptionalRight = OptionalRight {
    name: "+role",
    consequence: "the gate notices only when it writes that a server is no longer the primary",
    remedy: "allow the user in `url` to run ROLE: `ACL SETUSER gate +role`",
};
