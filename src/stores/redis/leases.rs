//! Leases.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{
    scripts::{LEASE, lease_key},
    store::RedisStore,
};
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
            let key = lease_key(name);
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            let mut script = LEASE.key(&key);
            script.arg(holder).arg(ttl);
            let acquire = async |connection: &mut _| script.invoke_async::<bool>(connection).await;
            self.run(Operation::Lease, Some(&key), false, acquire).await
        })
    }
}
