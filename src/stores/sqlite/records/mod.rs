//! Records of uploads in the file of the quotas.
//!
//! A change is written in the commit that the quotas of its request are in, so a request that reserves a unit and records
//! an intent waits for one commit. A change whose commit fails is not written later: its request fails.
//!
//! - [`port`]: the port.
//! - [`changes`]: the SQL of changes.
//! - [`queries`]: the SQL of reads.
//! - [`keys`]: the index.
//! - [`following`]: the SQL of uploads that are followed.
//! - [`storage`]: the SQL of the storage that is held.
//! - [`outbox`]: the SQL of events that wait.
//! - [`leases`]: what is taken for some time.
//! - [`erasures`]: erasures of a person's images.
//! - [`reconciliations`]: reconciliations with Imgwire.
//! - [`tables`]: the tables, and the secret of keyed digests.
//! - [`writer`]: the transaction of a change.
//! - [`rows`]: how values are stored.

mod changes;
mod erasures;
mod following;
mod keys;
mod leases;
mod outbox;
mod port;
mod queries;
mod read_only;
mod reconciliations;
mod rows;
mod storage;
mod tables;
mod writer;

pub(super) use self::{
    following::Following,
    keys::{KeyWriter, NewKeys},
    outbox::Deliveries,
    queries::View,
    tables::{create_tables, take_over_records},
    writer::{RecordChange, RecordWriter},
};
