//! PostgreSQL.
//!
//! - [`url`]: how a URL is read.
//! - [`connect`]: connections to the first host that can be used.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`lane`] and [`batch`]: reservations of many requests in one statement.
//! - [`cleanup`]: deletes counters of long past windows.
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
mod url;

use std::sync::Arc;

use policies::StoreUse;

use self::{members::Members, quotas::Counters, url::PostgresUrl};
use super::{
    fault::OpenError,
    kind::{Location, Opening, StoreKind},
    open::{Part, Port},
    shared_quotas::SharedQuotas,
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "PostgreSQL",
    example: "postgres://gate@db/app",
    uses: &[StoreUse::Quotas, StoreUse::Memberships],
    takes_password: true,
    is_opened_once: false,
    parse: |text| Some(PostgresUrl::parse(text)?.map(|url| Arc::new(url) as _)),
};

impl Location for PostgresUrl {
    fn open(&self, opening: &Opening<'_>) -> Result<Part, OpenError> {
        if opening.is_for(StoreUse::Memberships) {
            let members = Arc::new(Arc::new(Members::new(self, opening)));
            return Ok(Part {
                ports: vec![Port::Memberships(members.clone())],
                probe: members,
            });
        }
        let counters = Counters::new(self, opening);
        Ok(Part {
            ports: vec![Port::Quotas(Arc::new(SharedQuotas(counters.clone())))],
            probe: Arc::new(counters),
        })
    }
}
