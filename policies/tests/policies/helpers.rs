//! Requests, a clock and links to build chains of.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::ready;
use jiff::Timestamp;
use policies::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, CallSettings, Clock, Credentials,
    Decider, Decision, Denial, Endpoint, IdentityName, Link, MembershipSource, Memberships, Mode,
    OnFailure, Policy, PolicyInput, PolicyKind, PolicyName, Ports, Presented, Protocol, QuotaStore,
    RateLimitStore, RoutePath, StoreName, UploadRequest, Verdict,
};

/// Presents nothing.
pub(crate) struct Nobody;

impl Credentials for Nobody {
    fn authenticate<'a>(&'a self, _: &'a AcceptedIdentities) -> BoxFuture<'a, Presented> {
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
        provides: None,
        counter_store: None,
        policy,
    }
}

/// Builds a policy that needs nothing from outside but, if it asks for them, these memberships.
pub(crate) fn build(
    settings: &impl PolicyKind,
    memberships: Option<Arc<dyn Memberships>>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Policy> {
    let context = BuildContext {
        name: &PolicyName::parse("policy").unwrap(),
        clock: &clock,
        ports: &TestPorts(memberships),
        earlier: None,
    };
    settings.build(context).unwrap()
}

struct TestPorts(Option<Arc<dyn Memberships>>);

impl Ports for TestPorts {
    fn accept(&self, _: &[IdentityName]) -> Result<AcceptedIdentities, BuildError> {
        panic!("no test has identities")
    }

    fn quotas(&self, _: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError> {
        panic!("no test counts in a store")
    }

    fn rate_limits(&self, _: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError> {
        panic!("no test counts in a store")
    }

    fn memberships(
        &self,
        _: MembershipSource<'_>,
        _: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError> {
        Ok(self.0.clone().expect("the test has memberships"))
    }

    fn decider(
        &self,
        _: &Endpoint,
        _: Protocol,
        _: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError> {
        panic!("no test asks a service");
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
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(ready(Ok(Decision::from(Verdict::Deny(
            Denial::NotSignedIn,
        )))))
    }
}
