//! The use cases: issue a token, create an upload, show and delete images, and explain a decision. Also the rules that
//! decide.

mod background;
pub mod erasure;
pub mod event_delivery;
pub mod event_receiver;
mod events;
pub mod explain;
pub mod find_records;
pub mod follow;
pub mod idempotency;
pub mod images;
mod imgwire_call;
pub mod issue;
pub mod needs;
pub mod observer;
pub mod outcome;
pub mod ports;
pub mod readiness;
pub mod reconciliation;
pub mod record_view;
pub mod recovery;
mod repetition;
pub mod retention;
pub mod route_paths;
pub mod rules;
pub mod upload;
pub mod upload_call;
