//! The calls to Imgwire's API: what each sends, and how its response is read.

use std::time::Duration;

use actix_web::http::{Method, StatusCode, header::HeaderMap};
use awc::SendClientRequest;
use bytes::Bytes;
use policies::ImageId;
use secrecy::SecretString;

use super::{
    error::ImgwireError,
    image::{CreatedUpload, Image},
    request::SignedRequests,
    token::UploadToken,
};
use crate::outbound::JsonObject;

const IMAGES_PATH: &str = "/api/v1/images/";

/// An image has the EXIF data of its file.
const MAX_IMAGE_BYTES: usize = 1024 * 1024;

/// The result of a call, after all attempts.
#[derive(Debug)]
pub struct CallOutcome<T> {
    pub result: Result<T, ImgwireError>,
    /// 0 for a token from the pool.
    pub attempts: u32,
    /// The time of all attempts.
    pub took: Duration,
    /// Whether Imgwire may have done what was asked although the call failed.
    pub may_have_acted: bool,
    /// Whether Imgwire may have received the call more than once.
    pub is_repeated: bool,
}

/// A call to Imgwire's API. Repeating it must do no harm.
pub(super) trait Call {
    type Output;
    const METHOD: Method;
    /// What an attempt tries, for the log.
    const PURPOSE: &'static str;
    const MAX_RESPONSE_BYTES: usize;
    /// Whether every refusal of this call concerns the gate, and not only an image or an upload.
    const SPEAKS_FOR_ALL: bool = false;

    /// Sends the call with the headers of the trace context.
    fn send(&self, requests: &SignedRequests, trace: Option<HeaderMap>) -> SendClientRequest;

    fn is_success(status: StatusCode) -> bool {
        status == StatusCode::OK
    }

    /// Reads a successful response. `key` must not get into the log, even if the response contains it.
    fn read(&self, body: &[u8], key: &SecretString) -> Result<Self::Output, ImgwireError>;

    /// What the call yields if Imgwire has no such image. `None` if that is an error.
    fn without_image(&self) -> Option<Self::Output> {
        None
    }
}

/// Creates an upload token. A surplus token does no harm.
pub(super) struct CreateToken;

impl Call for CreateToken {
    type Output = UploadToken;
    const METHOD: Method = Method::POST;
    const PURPOSE: &'static str = "create an upload token";
    const MAX_RESPONSE_BYTES: usize = 64 * 1024;
    const SPEAKS_FOR_ALL: bool = true;

    fn send(&self, requests: &SignedRequests, trace: Option<HeaderMap>) -> SendClientRequest {
        match trace {
            None => requests.token.send(),
            Some(trace) => requests.token.extra_headers(trace).send(),
        }
    }

    fn read(&self, body: &[u8], key: &SecretString) -> Result<UploadToken, ImgwireError> {
        UploadToken::parse(JsonObject::parse(body)?, key)
    }
}

/// Creates an image without bytes. The body has an idempotency key, so that a repetition does not create another one.
pub(super) struct CreateUpload(pub(super) Bytes);

impl Call for CreateUpload {
    type Output = CreatedUpload;
    const METHOD: Method = Method::POST;
    const PURPOSE: &'static str = "create an upload";
    const MAX_RESPONSE_BYTES: usize = MAX_IMAGE_BYTES;

    fn send(&self, requests: &SignedRequests, trace: Option<HeaderMap>) -> SendClientRequest {
        let body = self.0.clone();
        match trace {
            None => requests.upload.send_body(body),
            Some(trace) => requests.upload.extra_headers(trace).send_body(body),
        }
    }

    fn read(&self, body: &[u8], _: &SecretString) -> Result<CreatedUpload, ImgwireError> {
        CreatedUpload::parse(body)
    }
}

/// Reads an image. Yields `None` if Imgwire has none with this id.
pub(super) struct ReadImage<'a>(pub(super) &'a ImageId);

impl Call for ReadImage<'_> {
    type Output = Option<Image>;
    const METHOD: Method = Method::GET;
    const PURPOSE: &'static str = "read an image";
    const MAX_RESPONSE_BYTES: usize = MAX_IMAGE_BYTES;

    fn send(&self, requests: &SignedRequests, trace: Option<HeaderMap>) -> SendClientRequest {
        let path = format!("{IMAGES_PATH}{}", self.0);
        requests.start(Self::METHOD, &path, trace).send()
    }

    fn read(&self, body: &[u8], _: &SecretString) -> Result<Option<Image>, ImgwireError> {
        let image = Image::parse(body)?;
        if image.id != *self.0 {
            let reason = "it describes another image";
            return Err(ImgwireError::InvalidResponse(reason.to_owned()));
        }
        Ok(Some(image))
    }

    fn without_image(&self) -> Option<Option<Image>> {
        Some(None)
    }
}

/// Deletes an image. One that does not exist is deleted, too.
pub(super) struct DeleteImage<'a>(pub(super) &'a ImageId);

impl Call for DeleteImage<'_> {
    type Output = ();
    const METHOD: Method = Method::DELETE;
    const PURPOSE: &'static str = "delete an image";
    const MAX_RESPONSE_BYTES: usize = MAX_IMAGE_BYTES;

    fn send(&self, requests: &SignedRequests, trace: Option<HeaderMap>) -> SendClientRequest {
        let path = format!("{IMAGES_PATH}{}", self.0);
        requests.start(Self::METHOD, &path, trace).send()
    }

    fn is_success(status: StatusCode) -> bool {
        status.is_success()
    }

    fn read(&self, _: &[u8], _: &SecretString) -> Result<(), ImgwireError> {
        Ok(())
    }

    fn without_image(&self) -> Option<()> {
        Some(())
    }
}
