//! PostgreSQL.
//!
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`batch`]: reservations of many requests in one statement.
//! - [`schema`]: the tables of counters.
//! - [`members`]: memberships, looked up in any database.

mod batch;
mod error;
mod members;
mod quotas;
mod schema;
mod text;

pub(super) use self::members::PostgresMembers;
pub use self::quotas::PostgresStore;
