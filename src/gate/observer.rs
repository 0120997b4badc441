//! What an image at Imgwire means for its record. Everything that reads an image asks this, so that a change is recorded
//! once, with its events, no matter which reader sees it first.

use std::{fmt, rc::Rc, sync::Arc};

use policies::{Clock, Fault, ImageId, excerpt};

use super::{
    background::context,
    events::new_events,
    rules::{OnMismatch, Rules},
};
use crate::{
    imgwire::{Client, Image, ImageStatus, ImgwireError},
    stores::{Ending, EventKind, FileFacts, Record, RecordStore, UploadState},
};

/// The longest MIME type that a record keeps.
const MAX_MIME_TYPE_BYTES: usize = 255;

/// Changes records as their images at Imgwire are.
#[derive(Clone)]
pub struct Observer {
    pub records: Arc<dyn RecordStore>,
    pub client: Rc<Client>,
    pub clock: Arc<dyn Clock>,
    pub rules: Arc<Rules>,
}

/// Why an image could not be read, or its record not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error(transparent)]
    Store(#[from] Fault),
    #[error(transparent)]
    Imgwire(#[from] ImgwireError),
}

/// How a record changes.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// The file has not arrived.
    Pending,
    /// The file has arrived, and Imgwire processes it.
    Processing,
    /// The record already describes the image.
    Nothing,
    /// The file is processed, or Imgwire describes it differently than before.
    Settled(Settled),
    /// The file is not what the client declared, and the route deletes such images.
    Rejected(FileFacts),
    /// The image does not exist any more.
    Gone,
}

#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) state: UploadState,
    pub(super) real: FileFacts,
    /// Whether the upload just arrived, and differs from what the client declared.
    is_mismatch: bool,
}

impl Observer {
    /// Decides how the record of an image changes. `None` is an image that Imgwire does not have.
    pub(super) fn change(&self, record: &Record, image: Option<&Image>) -> Change {
        let on_mismatch = self.rules.on_mismatch(&record.origin.route);
        change(record, image, on_mismatch)
    }

    /// Makes a change. Returns whether this call made it, and not an earlier one.
    pub(super) async fn apply(
        &self,
        record: &Record,
        change: Change,
    ) -> Result<bool, ObserveError> {
        match change {
            Change::Pending | Change::Processing | Change::Nothing => Ok(false),
            Change::Settled(settled) => Ok(self.settle(record, settled).await?),
            Change::Rejected(real) => self.reject(record, real).await,
            Change::Gone => {
                let is_new = self.delete(record).await?;
                if is_new {
                    let (id, image) = names(record);
                    tracing::info!(record = %id, image_id = image, "image was deleted at Imgwire");
                }
                Ok(is_new)
            }
        }
    }

    async fn settle(&self, record: &Record, settled: Settled) -> Result<bool, Fault> {
        let Settled {
            state,
            real,
            is_mismatch,
        } = settled;
        let kind = match state {
            UploadState::Quarantined => EventKind::UploadQuarantined,
            _ => EventKind::UploadReady,
        };
        let kinds = [kind].into_iter();
        let kinds = kinds.chain(is_mismatch.then_some(EventKind::UploadMismatched));
        let after = Record {
            state,
            real: real.clone(),
            ..record.clone()
        };
        let events = new_events(&self.rules, kinds, after, self.clock.now());
        let settling = self.records.settle(record.id, state, real.clone(), events);
        let is_new = settling.await?;
        if is_new && is_mismatch {
            let (id, image) = names(record);
            let (declared, real) = (Described(&record.origin.declared), Described(&real));
            tracing::warn!(record = %id, image_id = image, %declared, %real, "upload differs from what was declared");
        }
        Ok(is_new || record.state == state)
    }

    async fn reject(&self, record: &Record, real: FileFacts) -> Result<bool, ObserveError> {
        // If the gate ends after the deletion, the next read finds by this why the image is gone.
        let settling = self
            .records
            .settle(record.id, UploadState::Open, real.clone(), Vec::new());
        settling.await?;
        self.delete_at_imgwire(record).await?;
        let kinds = [EventKind::UploadMismatched, EventKind::ImageDeleted];
        let after = Record {
            real: real.clone(),
            ..record.clone()
        };
        let is_new = self.end(&after, Ending::Deleted, kinds).await?;
        if is_new {
            let (id, image) = names(record);
            let (declared, real) = (Described(&record.origin.declared), Described(&real));
            tracing::warn!(record = %id, image_id = image, %declared, %real, "upload that differs from what was declared deleted");
        }
        Ok(is_new)
    }

    /// Deletes an image whose file did not arrive.
    pub(super) async fn abandon(&self, record: &Record) -> Result<(), ObserveError> {
        self.delete_at_imgwire(record).await?;
        let kinds = [EventKind::UploadAbandoned];
        if self.end(record, Ending::Abandoned, kinds).await? {
            let (id, image) = names(record);
            tracing::info!(record = %id, image_id = image, "abandoned upload deleted");
        }
        Ok(())
    }

    /// Records that an image was deleted at Imgwire.
    pub(super) async fn delete(&self, record: &Record) -> Result<bool, Fault> {
        let kinds = [EventKind::ImageDeleted];
        self.end(record, Ending::Deleted, kinds).await
    }

    async fn end(
        &self,
        record: &Record,
        ending: Ending,
        kinds: impl IntoIterator<Item = EventKind>,
    ) -> Result<bool, Fault> {
        let now = self.clock.now();
        let after = Record {
            state: ending.into(),
            deleted_at: Some(now),
            ..record.clone()
        };
        let events = new_events(&self.rules, kinds, after, now);
        self.records.delete(record.id, ending, now, events).await
    }

    async fn delete_at_imgwire(&self, record: &Record) -> Result<(), ImgwireError> {
        match &record.image {
            None => Ok(()),
            Some(image) => self.client.delete_image(image, &context()).await.result,
        }
    }
}

fn names(record: &Record) -> (uuid::Uuid, Option<&str>) {
    (record.id.0, record.image.as_ref().map(ImageId::as_str))
}

fn change(record: &Record, image: Option<&Image>, on_mismatch: OnMismatch) -> Change {
    // Only a rejected upload that is still open has real facts.
    let is_rejected =
        record.state == UploadState::Open && differs(&record.origin.declared, &record.real);
    let Some(image) = image.filter(|image| !image.is_deleted) else {
        return match is_rejected {
            true => Change::Rejected(record.real.clone()),
            false => Change::Gone,
        };
    };
    let state = match image.status {
        ImageStatus::Pending => return Change::Pending,
        ImageStatus::Processing => return Change::Processing,
        ImageStatus::Ready => UploadState::Ready,
        ImageStatus::Quarantine => UploadState::Quarantined,
    };
    let mime_type = image.mime_type.as_ref().filter(|text| is_plain(text));
    let size = image.size.filter(|size| i64::try_from(*size).is_ok());
    let real = FileFacts {
        mime_type: mime_type.or(record.real.mime_type.as_ref()).cloned(),
        size: size.or(record.real.size),
    };
    if record.state == state && record.real == real {
        return Change::Nothing;
    }
    // A later change of the image is not a lie of the client.
    let has_arrived = record.state == UploadState::Open;
    let is_mismatch = has_arrived && differs(&record.origin.declared, &real);
    match on_mismatch {
        OnMismatch::Delete if is_mismatch => Change::Rejected(real),
        _ => Change::Settled(Settled {
            state,
            real,
            is_mismatch,
        }),
    }
}

/// Whether something that the client declared is known to be different.
fn differs(declared: &FileFacts, real: &FileFacts) -> bool {
    let types = declared.mime_type.as_ref().zip(real.mime_type.as_ref());
    let sizes = declared.size.zip(real.size);
    types.is_some_and(|(declared, real)| !declared.eq_ignore_ascii_case(real))
        || sizes.is_some_and(|(declared, real)| declared != real)
}

fn is_plain(mime_type: &str) -> bool {
    mime_type.len() <= MAX_MIME_TYPE_BYTES && mime_type.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A file for the log.
struct Described<'a>(&'a FileFacts);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileFacts { mime_type, size } = self.0;
        match mime_type {
            Some(mime_type) => f.write_str(&excerpt(mime_type))?,
            None => f.write_str("unknown type")?,
        }
        match size {
            Some(size) => write!(f, ", {size} bytes"),
            None => Ok(()),
        }
    }
}
