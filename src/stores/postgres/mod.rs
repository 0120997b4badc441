//! PostgreSQL.

mod members;
mod text;

pub(super) use self::members::PostgresMembers;
