//! What the gate does for a request: the rules in force, the issuing of a token, and what explains both.

pub mod explain;
pub mod issue;
pub mod ports;
pub mod rules;
pub(crate) mod shield;
