//! Finds out what became of uploads whose request ended without an answer from Imgwire: the gate or its connection
//! died. Repeating the call tells, because Imgwire creates one image for one idempotency key.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Fault, ImageId};

use super::{
    background::context,
    follow::next_read,
    idempotency::{Claim, digest_of},
};
use crate::{
    imgwire::{Client, ImgwireError, Refusal},
    stores::{Completed, Ending, Intent, RecordId, RecordStore},
};

/// At most so many are settled at once, so that requests come first.
const BATCH: u32 = 4;

/// How long the gate repeats a call whose refusal may have another reason.
const DOUBTED: SignedDuration = SignedDuration::from_hours(24);

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
    let Some(_claim) = Claim::take(digest_of(&intent.call)) else {
        return Ok((id, Settled::Busy));
    };
    let context = context();
    let called = client.create_upload(&intent.call, &context).await;
    let age = clock.now().duration_since(intent.origin.created_at);
    let image = match called.result {
        Ok(created) => created.image.id,
        Err(error) if is_refused(&error, age) => {
            records.withdraw(id).await?;
            return Ok((id, Settled::Withdrawn(error)));
        }
        Err(error) => return Ok((id, Settled::Unknown(error))),
    };
    let record = records.image(&image).await?;
    if record.is_some_and(|record| record.id != id) {
        records.withdraw(id).await?;
        return Ok((id, Settled::Repetition(image)));
    }
    // If the gate ends after this, the image has an owner, who can delete it. No repeated key may find it, because it is
    // about to be deleted.
    let now = clock.now();
    let follow_at = next_read(now, now);
    let intent = Arc::new(Intent {
        replay: None,
        ..intent
    });
    let completed = records.complete(intent, image.clone(), follow_at);
    let completed = completed.await?;
    if completed == Completed::Before {
        // A request has named it meanwhile, and its client has it.
        return Ok((id, Settled::Repetition(image)));
    }
    if called.is_repeated {
        // An attempt without an answer may still reach Imgwire. If the image were deleted before, it would create another one.
        tokio::time::sleep(client.timeout()).await;
    }
    if let Err(error) = client.delete_image(&image, &context).await.result {
        return Ok((id, Settled::Kept(image, error)));
    }
    match completed {
        // A record that is deleted, or names another image, stays as it is.
        Completed::Never => {}
        _ => {
            let (now, events) = (clock.now(), Vec::new());
            records.delete(id, Ending::Deleted, now, events).await?;
        }
    }
    Ok((id, Settled::Deleted(image)))
}

/// Whether Imgwire says that it does not accept the call. A status without a body of Imgwire may come from a proxy, and 409
/// may say that it works on the call. Neither does so for a day.
fn is_refused(error: &ImgwireError, age: SignedDuration) -> bool {
    let is_clear = error.body().is_some_and(|body| !body.is_empty())
        && !matches!(error, ImgwireError::Refused { status: 409, .. });
    error.refusal() == Some(Refusal::InvalidRequest) && (is_clear || age > DOUBTED)
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
