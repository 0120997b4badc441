//! A log of the reads of images.

use std::collections::VecDeque;

use actix_web::{dev::ServiceRequest, http::header};
use jiff::Timestamp;

use super::faults::IMAGES_PATH;

/// The oldest reads beyond it are forgotten.
const MAX_READS: usize = 100_000;

/// A request for an image, also if it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRead {
    pub image: String,
    /// The API key of the reader.
    pub key: String,
    pub at: Timestamp,
}

#[derive(Default)]
pub(super) struct Reads(VecDeque<ImageRead>);

impl Reads {
    pub(super) fn add(&mut self, request: &ServiceRequest, at: Timestamp) {
        let image = request.path().strip_prefix(IMAGES_PATH).unwrap_or_default();
        let key = request.headers().get(header::AUTHORIZATION);
        let key = key.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if self.0.len() == MAX_READS {
            self.0.pop_front();
        }
        self.0.push_back(ImageRead {
            image: image.to_owned(),
            key: key.unwrap_or_default().to_owned(),
            at,
        });
    }

    pub(super) fn all(&self) -> Vec<ImageRead> {
        self.0.iter().cloned().collect()
    }
}
