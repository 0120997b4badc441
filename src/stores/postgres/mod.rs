//! PostgreSQL.
//!
//! - [`connect`]: connections to whichever host can be used.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`lane`] and [`batch`]: reservations of many requests in one statement.
//! - [`cleanup`]: the end of counters whose windows are long over.
//! - [`schema`]: the tables of counters.
//! - [`members`]: memberships, looked up in any database.

mod batch;
mod cleanup;
mod connect;
mod error;
mod lane;
mod members;
mod quotas;
mod schema;
mod text;

pub(super) use self::members::PostgresMembers;
pub use self::quotas::PostgresStore;
