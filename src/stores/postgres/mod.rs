//! PostgreSQL.
//!
//! - [`connect`]: connections to whichever host can be used.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`lane`] and [`batch`]: reservations of many requests in one statement.
//! - [`schema`]: the tables of counters.
//! - [`members`]: memberships, looked up in any database.

mod batch;
mod connect;
mod error;
mod lane;
mod members;
mod quotas;
mod schema;
mod text;

pub(super) use self::members::PostgresMembers;
pub use self::quotas::PostgresStore;
