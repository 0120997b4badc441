//! Leases.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{scripts::LEASE, store::RedisStore};
use crate::{
    stores::{fault::StoreFault, kind::LeaseStore},
    telemetry::Operation,
};

impl LeaseStore for RedisStore {
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> LocalBoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move {
            let key = self.keys.lease(name);
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            let acquire =
                async |connection: &mut _| LEASE.run(connection, &key, (holder, ttl)).await;
            self.run(Operation::Lease, Some(&key), false, acquire).await
        })
    }
}
