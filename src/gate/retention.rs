//! Removes old records of deleted images and of issued tokens.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::{Clock, Fault};

use crate::stores::RecordStore;

/// So that the changes of requests wait for few others.
const PAGE: u32 = 500;

const PAUSE: Duration = Duration::from_millis(100);

/// Removes records that are older than `keep`, page by page.
pub async fn remove_old(
    records: &Arc<dyn RecordStore>,
    clock: &dyn Clock,
    keep: Duration,
) -> Result<(), Fault> {
    let before = clock.now().saturating_sub(keep);
    let before = before.unwrap_or(Timestamp::MIN);
    let mut removed = 0;
    loop {
        let count = records.remove_old(before, PAGE).await?;
        removed += count;
        if count < u64::from(PAGE) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(removed, "old records of uploads removed");
    }
    Ok(())
}
