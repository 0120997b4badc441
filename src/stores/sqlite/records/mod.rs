//! Records of uploads in the file of the quotas.
//!
//! A change is written in the commit that the quotas of its request are in, so a request that reserves a unit and records
//! an intent waits for one commit. A change whose commit fails is not written later: its request fails.
//!
//! - [`port`]: the port.
//! - [`changes`]: the SQL of changes.
//! - [`queries`]: the SQL of reads.
//! - [`keys`]: the index.
//! - [`erasures`]: erasures of a person's images.
//! - [`tables`]: the tables, and the secret of keyed digests.
//! - [`rows`]: how values are stored.

mod changes;
mod erasures;
mod keys;
mod port;
mod queries;
mod read_only;
mod rows;
mod tables;

pub(super) use self::{
    changes::{RecordChange, RecordWriter},
    keys::{KeyWriter, NewKeys},
    queries::View,
    tables::{create_tables, take_over_records},
};
