//! PostgreSQL.
//!
//! - [`connect`]: connects to the first host that works.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`batch`]: many reservations in one statement.
//! - [`statements`]: the tables, and the prepared statements of a connection.
//! - [`members`]: memberships in any database.

mod batch;
mod connect;
mod members;
mod quotas;
mod statements;

use std::sync::Arc;

use actix_web::rt;
use policies::StoreUse;

use self::{connect::PostgresUrl, members::Members, quotas::Counters};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, OpenPorts, StoreKind},
    retention::CleanupSchedule,
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
    fn open(&self, options: &OpenOptions<'_>) -> Result<OpenPorts, OpenError> {
        if options.is_for(StoreUse::Memberships) {
            let members = Arc::new(Arc::new(Members::new(self, options)));
            return Ok(OpenPorts {
                memberships: Some(members.clone()),
                ..OpenPorts::none(members)
            });
        }
        let counters = Arc::new(Counters::new(self, options));
        let schedule = CleanupSchedule::new(options.context.clock.clone());
        rt::spawn(quotas::delete_old(Arc::downgrade(&counters), schedule));
        Ok(OpenPorts {
            quotas: Some(Arc::new(SharedQuotas(counters.clone()))),
            ..OpenPorts::none(Arc::new(counters))
        })
    }
}
