//! The use cases: issue a token, and explain a decision. Also the rules that decide.

pub mod explain;
pub mod issue;
pub mod needs;
pub mod ports;
pub mod readiness;
pub mod route_paths;
pub mod rules;
