//! Requests, a clock and links to build chains of.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{LocalBoxFuture, ready};
use jiff::Timestamp;
use policies::{
    Accept, Clock, Credentials, Deciding, Decision, Denial, Evaluating, Fault, Link, Policy,
    PolicyName, Presented, RoutePath, UploadRequest, Verdict,
    settings::{Mode, OnFailure},
};

/// Presents nothing.
pub(crate) struct Nobody;

impl Credentials for Nobody {
    fn judge<'a>(&'a self, _: &'a Accept) -> LocalBoxFuture<'a, Result<Presented, Fault>> {
        Box::pin(ready(Ok(Presented::Nothing)))
    }
}

/// A request from the address with this number.
pub(crate) fn request_from(number: u32) -> UploadRequest {
    UploadRequest {
        route: RoutePath::parse("/api/imgwire/upload-token").unwrap(),
        workspace: None,
        purpose: None,
        file: None,
        ip: IpAddr::V4(Ipv4Addr::from_bits(number)),
        credentials: Box::new(Nobody),
    }
}

pub(crate) fn link(name: &str, policy: Arc<dyn Policy>) -> Link {
    Link {
        name: PolicyName::parse(name).unwrap(),
        kind: "test",
        mode: Mode::Enforce,
        on_failure: OnFailure::Deny,
        when: None,
        counting: None,
        policy,
    }
}

/// A clock that stands still until it is told to go.
#[derive(Default)]
pub(crate) struct StoppedClock(Mutex<Duration>);

impl StoppedClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// Lets nobody in.
pub(crate) struct Deny;

impl Policy for Deny {
    fn decide<'a>(&'a self, _: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(ready(Ok(Decision::from(Verdict::Deny(
            Denial::NotSignedIn,
        )))))
    }
}
