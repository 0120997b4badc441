//! The client of Imgwire.
//!
//! - `client`: attempts, retries, and probes of the circuit breaker.
//! - `response`, `error_body`, `log_text`: what Imgwire says, and what of it may be logged.
//! - `error`, `refusal`: what a failure means, and the state in which no retry can help.
//! - `api_key`, `breaker`, `pool`, `upstream`: what the clients of all workers share.
//! - `audit`: what `doctor` and a running gate try at Imgwire.

mod api_key;
pub mod audit;
mod breaker;
mod client;
mod error;
mod error_body;
mod log_text;
mod pool;
mod refusal;
mod response;
mod token;
mod upstream;

pub use self::{
    api_key::{ApiKey, CurrentKey},
    breaker::{Breaker, BreakerState},
    client::{Client, TraceContext},
    error::ImgwireError,
    error_body::ErrorBody,
    pool::Pool,
    refusal::Refusal,
    token::{TokenOutcome, UploadToken},
    upstream::Upstream,
};
