//! Finds out who uploaded an image.

use std::rc::Rc;

use policies::{Clock, Fault, ImageId};

use super::background::context;
use crate::{
    imgwire::{Client, Image, ImageStatus, ImgwireError, Refusal},
    stores::{Ending, FileFacts, Page, Record, RecordQuery, RecordStore, UploadState},
};

/// Why records could not be found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Store(#[from] Fault),
    #[error(transparent)]
    Imgwire(#[from] ImgwireError),
}

/// Finds records, the newest first. An image without a record may have come through a token, so Imgwire is asked which
/// one.
pub async fn find(
    records: &dyn RecordStore,
    client: &Rc<Client>,
    clock: &dyn Clock,
    query: RecordQuery,
    page: Page,
) -> Result<Vec<Record>, FindError> {
    let found = records.find(query.clone(), page).await?;
    let Some(image) = query.image.clone().filter(|_| found.is_empty()) else {
        return Ok(found);
    };
    let is_linked = link(records, client, clock, &image).await?;
    match is_linked {
        true => Ok(records.find(query, page).await?),
        false => Ok(found),
    }
}

/// Names the image in the record of its token. Returns whether there is such a record.
async fn link(
    records: &dyn RecordStore,
    client: &Rc<Client>,
    clock: &dyn Clock,
    image: &ImageId,
) -> Result<bool, FindError> {
    const FIRST: Page = Page { number: 1, size: 1 };

    let by_image = RecordQuery {
        image: Some(image.clone()),
        ..RecordQuery::default()
    };
    if !records.find(by_image, FIRST).await?.is_empty() {
        return Ok(false);
    }
    let described = match client.image(image, &context()).await.result {
        Ok(Some(described)) => described,
        Ok(None) => return Ok(false),
        // Not an id that an image can have.
        Err(error) if error.refusal() == Some(Refusal::InvalidRequest) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Some(token) = described.token.clone() else {
        return Ok(false);
    };
    let by_token = RecordQuery {
        token: Some(token),
        ..RecordQuery::default()
    };
    let issued = records.find(by_token, FIRST).await?;
    // A token creates one image.
    let Some(record) = issued.first().filter(|record| record.image.is_none()) else {
        return Ok(false);
    };
    records.link(record.id, image.clone()).await?;
    if described.is_deleted {
        let (now, events) = (clock.now(), Vec::new());
        records
            .delete(record.id, Ending::Deleted, now, events)
            .await?;
    } else if let Some((state, real)) = observed(described) {
        records.settle(record.id, state, real, Vec::new()).await?;
    }
    Ok(true)
}

/// What a record says of an image whose file has arrived.
fn observed(image: Image) -> Option<(UploadState, FileFacts)> {
    let state = match image.status {
        ImageStatus::Ready => UploadState::Ready,
        ImageStatus::Quarantine => UploadState::Quarantined,
        ImageStatus::Pending | ImageStatus::Processing => return None,
    };
    let real = FileFacts {
        mime_type: image.mime_type,
        size: image.size,
    };
    Some((state, real))
}
