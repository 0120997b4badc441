//! The scripts that run on the server.

use redis::Script;

pub(super) struct Scripts {
    pub(super) limit: Script,
    pub(super) reserve: Script,
    pub(super) give_back: Script,
    pub(super) lease: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            limit: Script::new(include_str!("limit.lua")),
            reserve: Script::new(include_str!("reserve.lua")),
            give_back: Script::new(include_str!("give_back.lua")),
            lease: Script::new(include_str!("lease.lua")),
        }
    }
}
