//! The client of Imgwire.
//!
//! - `client`: attempts, retries, and probes of the circuit breaker.
//! - `calls`, `request`: the calls to Imgwire's API.
//! - `token`, `image`: what the calls yield.
//! - `response`, `error_body`, `log_text`: what Imgwire says, and what of it may be logged.
//! - `error`, `refusal`: what a failure means, and the state in which no retry can help.
//! - `api_key`, `breaker`, `pool`, `upstream`: what the clients of all workers share.
//! - `audit`: what `doctor` and a running gate try at Imgwire.

mod api_key;
pub mod audit;
mod breaker;
mod calls;
mod client;
mod error;
mod error_body;
mod image;
mod log_text;
mod pool;
mod refusal;
mod request;
mod response;
mod token;
mod upstream;

pub use self::{
    api_key::{ApiKey, CurrentKey},
    breaker::{Breaker, BreakerState},
    calls::CallOutcome,
    client::Client,
    error::ImgwireError,
    error_body::ErrorBody,
    image::{CreatedUpload, Image, ImageStatus},
    pool::Pool,
    refusal::Refusal,
    request::TraceContext,
    token::UploadToken,
    upstream::Upstream,
};
