//! PostgreSQL.
//!
//! - [`connect`]: connects to the first host that works.
//! - [`quotas`]: counters, shared by any number of gates.
//! - [`batch`]: many reservations in one statement.
//! - [`statements`]: the tables, and the prepared statements of a connection.
//! - [`leases`]: work that one of several gates does.
//! - [`members`]: memberships in any database.

mod batch;
mod connect;
mod leases;
mod members;
mod quotas;
mod statements;

use std::sync::Arc;

use actix_web::rt;
use policies::StoreUse;
use tokio_postgres::config::SslMode;

use self::{connect::PostgresUrl, members::Members, quotas::Counters};
use super::{
    fault::OpenError,
    kind::{Location, OpenOptions, OpenPorts, StoreKind},
    retention::CleanupSchedule,
    settings::TlsSettings,
    shared_quotas::SharedQuotas,
};

pub(super) const KIND: StoreKind = StoreKind {
    name: "PostgreSQL",
    example: "postgres://gate@db/app",
    uses: &[StoreUse::Quotas, StoreUse::Memberships],
    rights: "grant the role in `url` what it needs: for quotas to create the schema `imgwire_gate` and its tables, or to \
             read and write them; for memberships to select from the tables of the query",
    takes_password: true,
    takes_prefix: false,
    is_opened_once: false,
    parse: |text| {
        let url = PostgresUrl::parse(text)?;
        Some(url.map(|url| Arc::new(url) as _).map_err(str::to_owned))
    },
};

impl Location for PostgresUrl {
    fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    fn tls(&self) -> Result<TlsSettings, String> {
        match self.config.get_ssl_mode() {
            SslMode::Require => Ok(TlsSettings::default()),
            _ => Err("needs `sslmode=require` in the URL".to_owned()),
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
            ..OpenPorts::none(Arc::new(counters))
        })
    }
}
