//! r
/// s
pub const SESSION_PATH: &str = "/api/imgwire/session";
/// a
pub const ALLOWANCE: &str = "/allowance";
