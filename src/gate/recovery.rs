//! Finds out what became of uploads whose request ended without an answer from Imgwire: the gate or its connection
//! died. Repeating the call tells, because Imgwire creates one image for one idempotency key.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use policies::{Clock, Fault, ImageId};

use super::{background::context, follow::next_read, idempotency::SlotClaim};
use crate::{
    imgwire::{Client, ImgwireError, Refusal},
    stores::{Ending, Intent, RecordId, RecordStore},
};

/// At most so many are settled at once, so that requests come first.
const BATCH: u32 = 4;

/// What became of an intent.
#[derive(Debug)]
enum Settled {
    /// There is an image, whose client got no answer. It is deleted at Imgwire.
    Deleted(ImageId),
    /// There is an image, but Imgwire did not delete it. It stays recorded.
    Kept(ImageId, ImgwireError),
    /// There is an image, which has another record: the intent was of a repetition.
    Repetition(ImageId),
    /// A request of this gate repeats the upload at the moment.
    Busy,
    /// Imgwire created no image, because it does not accept the call. Any other refusal may have come first: it says
    /// nothing about what an earlier call did.
    Withdrawn(ImgwireError),
    /// Imgwire did not say.
    Unknown(ImgwireError),
}

/// Settles intents that are due. One that cannot be settled is due again after `pause`, which must be longer than it
/// takes to settle one. Returns whether more may be due.
pub async fn recover(
    records: &Arc<dyn RecordStore>,
    client: &Rc<Client>,
    clock: &dyn Clock,
    pause: Duration,
) -> Result<bool, Fault> {
    let now = clock.now();
    let intents = records.take_due(now, later(now, pause), BATCH).await?;
    let is_full = intents.len() >= BATCH as usize;
    let settled = stream::iter(intents)
        .map(|intent| settle(records, client, clock, intent))
        .buffer_unordered(BATCH as usize);
    let settled: Vec<_> = settled.collect().await;
    let mut unknown = Vec::new();
    let mut fault = None;
    for result in settled {
        match result {
            Ok((_, Settled::Unknown(error))) => unknown.push(error),
            Ok((id, settled)) => log(id, &settled),
            Err(one) => fault = Some(one),
        }
    }
    // One line for all, because Imgwire may be down for long.
    if let Some(error) = unknown.first() {
        let uploads = unknown.len();
        tracing::warn!(uploads, %error, "cannot settle uploads without an answer");
    }
    fault.map_or(Ok(is_full), Err)
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

async fn settle(
    records: &Arc<dyn RecordStore>,
    client: &Rc<Client>,
    clock: &dyn Clock,
    intent: Intent,
) -> Result<(RecordId, Settled), Fault> {
    let id = intent.id;
    let claim = intent
        .replay
        .map(|replay| SlotClaim::take(replay.slot));
    if matches!(claim, Some(None)) {
        return Ok((id, Settled::Busy));
    }
    let context = context();
    let image = match client.create_upload(&intent.call, &context).await.result {
        Ok(created) => created.image.id,
        Err(error) if error.refusal() == Some(Refusal::InvalidRequest) => {
            records.withdraw(id).await?;
            return Ok((id, Settled::Withdrawn(error)));
        }
        Err(error) => return Ok((id, Settled::Unknown(error))),
    };
    if let Some(record) = records.image(&image).await?
        && record.id != id
    {
        records.withdraw(id).await?;
        return Ok((id, Settled::Repetition(image)));
    }
    // If the gate ends after this, the image has an owner, who can delete it.
    let now = clock.now();
    let follow_at = next_read(now, now);
    let completed = records.complete(Arc::new(intent), image.clone(), follow_at);
    let is_recorded = completed.await?;
    if let Err(error) = client.delete_image(&image, &context).await.result {
        return Ok((id, Settled::Kept(image, error)));
    }
    // Otherwise the record was settled meanwhile: an erasure has removed it, or it names another image.
    if is_recorded {
        let (now, events) = (clock.now(), Vec::new());
        records.delete(id, Ending::Deleted, now, events).await?;
    }
    Ok((id, Settled::Deleted(image)))
}

fn log(RecordId(record): RecordId, settled: &Settled) {
    match settled {
        Settled::Deleted(image) => {
            let image_id = image.as_str();
            tracing::info!(%record, image_id, "upload without an answer deleted");
        }
        Settled::Kept(image, error) => {
            let image_id = image.as_str();
            tracing::warn!(%record, image_id, %error, "upload without an answer not deleted");
        }
        Settled::Repetition(image) => {
            let image_id = image.as_str();
            tracing::debug!(%record, image_id, "repeated upload has its image");
        }
        Settled::Busy => tracing::debug!(%record, "upload without an answer is being repeated"),
        Settled::Withdrawn(error) | Settled::Unknown(error) => {
            tracing::info!(%record, %error, "upload without an answer was not created");
        }
    }
}
