//! Deletes counters of long past windows: page by page, on its own connection, in the background.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{batch::system_time, error::fault, quotas::Counters};
use crate::stores::{
    StoreFault,
    retention::{Cleaning, KEPT, PAGE},
};

const LOOK: Duration = Duration::from_secs(1);

/// Runs while the store is open.
pub(super) async fn keep_clean(store: Weak<Counters>, mut cleaning: Cleaning) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(store) = store.upgrade() else { return };
        if cleaning.due_in().is_zero() {
            if let Err(error) = clean(&store, &mut cleaning).await {
                tracing::warn!(store = %store.health.store(), %error, "counters of past windows were not deleted");
            }
            cleaning.did_page(None);
        }
    }
}

async fn clean(store: &Arc<Counters>, cleaning: &mut Cleaning) -> Result<(), StoreFault> {
    let connected = store.connect(store.health.timeout()).await?;
    let client = connected.session.client;
    let statement = client.prepare(include_str!("clean.sql")).await;
    let statement = statement.map_err(|error| fault(&error))?;
    let (page, kept) = (i64::from(PAGE), KEPT.as_secs_f64());
    loop {
        let ((policy, key), now) = (cleaning.after(), system_time(cleaning.now()));
        let last = client
            .query_opt(&statement, &[&policy, &key, &page, &kept, &now])
            .await
            .map_err(|error| fault(&error))?;
        let Some(last) = last.filter(|last| last.get::<_, i64>(2) == page) else {
            return Ok(());
        };
        cleaning.did_page(Some((last.get(0), last.get(1))));
        tokio::time::sleep(cleaning.due_in()).await;
    }
}
