//! The client of Imgwire, its circuit breaker and its pool of tokens.

mod breaker;
mod client;
mod error;
mod pool;
mod token;
mod upstream;

pub use self::{
    breaker::{Breaker, BreakerState},
    client::{Caller, Client},
    error::ImgwireError,
    pool::Pool,
    token::{Creation, UploadToken},
    upstream::Upstream,
};
