//! What the gate does for a request: the rules in force, issuing a token, and explaining decisions.

pub mod explain;
pub mod issue;
pub mod ports;
pub mod rules;
pub(crate) mod shield;
