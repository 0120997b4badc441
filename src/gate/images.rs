//! Reads, lists and deletes images for the users that may see them. Imgwire is asked only for images whose record says
//! so.

use actix_web::rt;
use futures_util::stream::{self, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use policies::{Denial, ImageId, Pass, UploadRequest};

use super::{
    follow::next_read,
    imgwire_call::{in_span, warn},
    observer::{Change, ObserveError, Observer},
    outcome::{Details, Failure},
    rules::UploadRoute,
    upload::Owner,
};
use crate::{
    imgwire::{CallOutcome, Image, TraceContext},
    stores::{Holder, Page, Record},
};

/// How many images of a list are read from Imgwire at once.
const CONCURRENT_READS: usize = 5;

/// How long the changes of a record may take, beyond the deadline of the call to Imgwire.
const MARGIN: SignedDuration = SignedDuration::from_secs(15);

/// A request for images of an upload route.
pub struct ImageRequest<'a> {
    pub uploads: &'a UploadRoute,
    pub observer: &'a Observer,
    pub context: &'a TraceContext,
    pub request: &'a UploadRequest,
}

/// A part of a list.
pub struct ImageList {
    pub images: Vec<Image>,
    /// How many all pages have.
    pub total: u64,
}

impl ImageRequest<'_> {
    pub async fn show(&self, id: &ImageId, details: &mut Details) -> Result<Image, Failure> {
        let owner = self.admit(details).await?;
        let record = self.record(&owner, id).await?;
        let image = self.read(id).await;
        details.add_call(&image);
        let image = existing(image)?;
        let change = self.observer.change(&record, image.as_ref());
        let is_rejected = matches!(change, Change::Rejected(_));
        self.apply(record, change);
        image.filter(|_| !is_rejected).ok_or(Failure::NoImage(None))
    }

    /// Lists images, the newest first. An image that does not exist at Imgwire any more is left out.
    pub async fn list(&self, page: Page, details: &mut Details) -> Result<ImageList, Failure> {
        let owner = self.admit(details).await?;
        let holder = match owner.workspace {
            Some(workspace) => Holder::Workspace(workspace),
            None => Holder::Subject(owner.subject),
        };
        let found = self.uploads.records.images(holder, page).await;
        let found = found.map_err(Failure::Unrecorded)?;
        let reads = stream::iter(&found.images).map(|id| self.read(id));
        let (clock, mut reads) = (&self.observer.clock, reads.buffered(CONCURRENT_READS));
        let (started, mut attempts, mut images) = (clock.elapsed(), 0, Vec::new());
        while let Some(read) = reads.next().await {
            attempts += read.attempts;
            details.upstream = Some((attempts, clock.elapsed().saturating_sub(started)));
            images.extend(existing(read)?);
        }
        Ok(ImageList {
            images,
            total: found.total,
        })
    }

    /// Deletes an image. It must `run_to_completion` even if the client disconnects.
    pub async fn delete(&self, id: &ImageId, details: &mut Details) -> Result<(), Failure> {
        let owner = self.admit(details).await?;
        let record = self.record(&owner, id).await?;
        let membership = details.facts.membership.as_ref();
        let has_role = membership.is_some_and(|membership| {
            let mut roles = self.uploads.delete_roles.iter();
            roles.any(|role| membership.has_role(role))
        });
        if record.origin.subject != owner.subject && !has_role {
            return Err(Failure::NoImage(None));
        }
        // If the gate ends before the deletion is recorded, it finds out by a read.
        let records = &self.uploads.records;
        let followed = records.follow(record.id, self.after_deletion()).await;
        followed.map_err(Failure::Unrecorded)?;
        let deleting = in_span("delete image", self.context, async |context| {
            self.observer.client.delete_image(id, context).await
        });
        let deleting = deleting.await;
        details.add_call(&deleting);
        deleting.result.map_err(Failure::ImgwireFailed)?;
        let deleted = self.observer.delete(&record).await;
        deleted.map(drop).map_err(Failure::Unrecorded)
    }

    /// When a deletion that begins now has ended for certain.
    fn after_deletion(&self) -> Timestamp {
        let deadline = SignedDuration::try_from(self.observer.client.deadline());
        let takes = deadline.unwrap_or(SignedDuration::MAX);
        let end = self.observer.clock.now().saturating_add(takes);
        let end = end.and_then(|end| end.saturating_add(MARGIN));
        end.unwrap_or(Timestamp::MAX)
    }

    /// Evaluates the policies that say who the user is. A workspace of others looks as if it had no images.
    async fn admit(&self, details: &mut Details) -> Result<Owner, Failure> {
        let access = &self.uploads.access;
        let evaluating =
            details.evaluate(access, self.request, Pass::Repeat, &*self.observer.clock);
        match evaluating.await {
            Ok(permit) => details.tolerated.extend(permit.not_issued().await),
            Err(failure) => return Err(hidden(failure)),
        }
        Owner::of(&details.facts, self.uploads).map_err(hidden)
    }

    /// Finds the record of an image that the user may see.
    async fn record(&self, owner: &Owner, id: &ImageId) -> Result<Record, Failure> {
        let record = self.uploads.records.image(id).await;
        let record = record.map_err(Failure::Unrecorded)?;
        let is_visible = |record: &Record| match &owner.workspace {
            Some(workspace) => record.origin.workspace.as_ref() == Some(workspace),
            None => record.origin.workspace.is_none() && record.origin.subject == owner.subject,
        };
        record.filter(is_visible).ok_or(Failure::NoImage(None))
    }

    async fn read(&self, id: &ImageId) -> CallOutcome<Option<Image>> {
        in_span("read image", self.context, async |context| {
            self.observer.client.image(id, context).await
        })
        .await
    }

    /// Records in the background what the read of an image says. One read does not prove that an image is gone, so that
    /// the gate reads it again.
    fn apply(&self, record: Record, change: Change) {
        if matches!(
            change,
            Change::Pending | Change::Processing | Change::Nothing
        ) {
            return;
        }
        let (observer, context) = (self.observer.clone(), self.context.clone());
        rt::spawn(async move {
            let now = observer.clock.now();
            let applied = match change {
                Change::Gone => {
                    let again = observer.records.follow(record.id, next_read(now, now));
                    again.await.map_err(ObserveError::Store)
                }
                change => observer.apply(&record, change).await.map(drop),
            };
            match applied {
                Ok(()) => {}
                Err(ObserveError::Store(fault)) => warn(&context, &fault),
                // Every attempt has a line already.
                Err(ObserveError::Imgwire(_)) => {}
            }
        });
    }
}

/// `None` if the image does not exist any more.
fn existing(read: CallOutcome<Option<Image>>) -> Result<Option<Image>, Failure> {
    let image = read.result.map_err(Failure::ImgwireFailed)?;
    Ok(image.filter(|image| !image.is_deleted))
}

/// Only members learn whether a workspace has images.
fn hidden(failure: Failure) -> Failure {
    match failure {
        Failure::Denied(policy, denial @ Denial::WorkspaceForbidden(_)) => {
            Failure::NoImage(Some((policy, denial)))
        }
        failure => failure,
    }
}
