//! Finds out who uploaded an image.

use policies::ImageId;

use super::{
    background::context,
    observer::{ObserveError, Observer},
};
use crate::{
    imgwire::Refusal,
    stores::{Page, Record, RecordQuery, UploadState},
};

/// Finds records, the newest first. An image without a record may have come through a token, so Imgwire is asked which
/// one.
pub async fn find(
    observer: &Observer,
    query: RecordQuery,
    page: Page,
) -> Result<Vec<Record>, ObserveError> {
    let records = &observer.records;
    let found = records.find(query.clone(), page).await?;
    let Some(image) = query.image.clone().filter(|_| found.is_empty()) else {
        return Ok(found);
    };
    let is_linked = link(observer, &image).await?;
    match is_linked {
        true => Ok(records.find(query, page).await?),
        false => Ok(found),
    }
}

/// Names the image in the record of its token. Returns whether there is such a record.
async fn link(observer: &Observer, image: &ImageId) -> Result<bool, ObserveError> {
    const FIRST: Page = Page { number: 1, size: 1 };

    let records = &observer.records;
    let by_image = RecordQuery {
        image: Some(image.clone()),
        ..RecordQuery::default()
    };
    if !records.find(by_image, FIRST).await?.is_empty() {
        return Ok(false);
    }
    let described = match observer.client.image(image, &context()).await.result {
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
    let mut issued = records.find(by_token, FIRST).await?.into_iter();
    // A token creates one image.
    let Some(record) = issued.next().filter(|record| record.image.is_none()) else {
        return Ok(false);
    };
    records.link(record.id, image.clone()).await?;
    let linked = Record {
        image: Some(image.clone()),
        state: UploadState::Open,
        ..record
    };
    let change = observer.change(&linked, Some(&described));
    observer.apply(&linked, change).await?;
    Ok(true)
}
