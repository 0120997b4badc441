//! Deletes counters of long past windows page by page, on its own connection, in the background.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::super::{
    fault::StoreFault,
    retention::{CleanupSchedule, PAGE, RETENTION},
};
use super::{error::fault, quotas::Counters, time::system_time};

/// How often to check whether the store is still open.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Runs while the store is open.
pub(super) async fn run(counters: Weak<Counters>, mut schedule: CleanupSchedule) {
    loop {
        tokio::time::sleep(CHECK_PERIOD).await;
        let Some(counters) = counters.upgrade() else {
            return;
        };
        if schedule.due_in().is_zero() {
            if let Err(error) = delete_old(&counters, &mut schedule).await {
                tracing::warn!(store = %counters.health.store(), %error, "old counters were not deleted");
            }
            schedule.schedule_next(None);
        }
    }
}

async fn delete_old(
    counters: &Arc<Counters>,
    schedule: &mut CleanupSchedule,
) -> Result<(), StoreFault> {
    let statements = counters.connect(counters.health.timeout()).await?;
    let client = statements.client();
    let statement = client.prepare(include_str!("clean.sql")).await;
    let statement = statement.map_err(|error| fault(&error))?;
    let (page, retention) = (i64::from(PAGE), RETENTION.as_secs_f64());
    loop {
        let ((policy, key), now) = (schedule.after(), system_time(schedule.now()));
        let last = client
            .query_opt(&statement, &[&policy, &key, &page, &retention, &now])
            .await
            .map_err(|error| fault(&error))?;
        let Some(last) = last.filter(|last| last.get::<_, i64>(2) == page) else {
            return Ok(());
        };
        schedule.schedule_next(Some((last.get(0), last.get(1))));
        tokio::time::sleep(schedule.due_in()).await;
    }
}
