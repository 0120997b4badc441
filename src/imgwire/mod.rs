//! The client of Imgwire, its circuit breaker and its pool of tokens, and the audit of what protects the gate.

pub mod audit;
mod breaker;
mod client;
mod error;
mod pool;
mod token;
mod upstream;

pub use self::{
    breaker::{Breaker, BreakerState},
    client::{Client, TraceContext},
    error::ImgwireError,
    pool::Pool,
    token::{TokenOutcome, UploadToken},
    upstream::Upstream,
};
