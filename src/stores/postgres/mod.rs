//! PostgreSQL.
//!
//! - [`url`], [`parameters`]: the URLs of libpq, of providers and of other tools.
//! - [`connect`]: connects to the first host that works.
//! - [`process_id`]: finds out whether a pooler is between the gate and the server.
//! - [`transaction`]: how a transaction begins that leaves nothing behind in a session.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`batch`]: many reservations in one statement.
//! - [`statements`]: the tables, and the statements of a connection.
//! - [`records`]: records of uploads.
//! - [`leases`]: work that one of several gates does.
//! - [`members`], [`pooled_members`], [`types`]: memberships in any database.

mod batch;
mod connect;
mod leases;
mod members;
mod parameters;
mod pooled_members;
mod process_id;
mod quotas;
mod records;
mod statements;
mod transaction;
mod types;
mod url;

use std::sync::Arc;

use actix_web::rt;
use policies::StoreUse;

use self::{members::Members, quotas::Counters, records::Records, url::PostgresUrl};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, OpenPorts, StoreKind},
    retention::CleanupSchedule,
    shared_quotas::SharedQuotas,
    tls::TlsSettings,
};
use crate::outbound::TlsMaterial;

pub(super) const KIND: StoreKind = StoreKind {
    name: "PostgreSQL",
    example: "postgres://gate@db/app",
    uses: &[StoreUse::Quotas, StoreUse::Uploads, StoreUse::Memberships],
    rights: "grant the role in `url` what it needs: for quotas and records of uploads to create the schema \
             `imgwire_gate` and its tables, or to read and write them; for memberships to select from the tables of the query",
    takes_password: true,
    takes_prefix: false,
    is_opened_once: false,
    parse: |text| {
        let url = PostgresUrl::parse(text)?;
        Some(url.map(|url| Arc::new(url) as _))
    },
};

impl Location for PostgresUrl {
    fn has_password(&self) -> bool {
        Self::has_password(self)
    }

    fn tls(&self) -> Result<TlsSettings, String> {
        Self::tls(self)
    }

    fn check_tls(&self, material: &TlsMaterial) -> Result<(), String> {
        match self.needs_ca() && !material.has_authorities() {
            true => Err("has sslmode=verify-ca, which needs the authority of the server (`sslrootcert`, or `tls.ca` of \
                         the store), because every certificate of a public authority would do".to_owned()),
            false => Ok(()),
        }
    }

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
        let quotas = Arc::new(SharedQuotas(counters.clone()));
        Ok(OpenPorts {
            quotas: Some(quotas.clone()),
            time: Some(quotas),
            leases: Some(Arc::new(counters.clone())),
            records: Some(Arc::new(Records::new(counters.clone()))),
            ..OpenPorts::none(Arc::new(counters))
        })
    }
}
