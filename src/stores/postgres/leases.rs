//! Leases.

use std::{sync::Arc, time::Duration};

use futures_util::future::LocalBoxFuture;
use tokio_postgres::types::Type;

use super::{batch::Batcher, connect::write_fault, quotas::Counters, statements::Sql};
use crate::{
    stores::{fault::StoreFault, kind::LeaseStore},
    telemetry::Operation,
};

impl LeaseStore for Arc<Counters> {
    /// Goes by the server's clock, at the time when the row is locked.
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> LocalBoxFuture<'a, Result<bool, StoreFault>> {
        const ACQUIRE: Sql = Sql {
            text: "\
                insert into imgwire_gate.lease as lease (name, holder, held_until) \
                values ($1, $2, clock_timestamp() + $3 * interval '1 second') \
                on conflict (name) do update \
                set holder = excluded.holder, held_until = excluded.held_until \
                where lease.held_until <= clock_timestamp() or lease.holder = excluded.holder \
                returning true",
            types: &[Type::TEXT, Type::TEXT, Type::FLOAT8],
        };

        Box::pin(async move {
            let seconds = ttl.as_secs_f64();
            let acquire = async |batcher: Arc<Batcher>| {
                let statements = batcher.statements();
                let changed = statements
                    .query(&ACQUIRE, &[&name, &holder, &seconds])
                    .await;
                changed.map_err(|error| write_fault(&error))
            };
            let changed = self.run_on_connection(Operation::Lease, false, acquire);
            Ok(!changed.await?.is_empty())
        })
    }
}
