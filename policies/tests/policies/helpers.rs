//! Requests, users, a clock, ports, and links to build chains of.

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt as _, future::ready};
use jiff::Timestamp;
use policies::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, CallSettings, Clock, Credentials,
    Decider, Decision, Denial, Endpoint, Facts, Fault, Findings, IdentityName, Link, Membership,
    MembershipSource, Memberships, Mode, OnFailure, Pass, Policy, PolicyInput, PolicyKind,
    PolicyName, Ports, Presented, Protocol, QuotaStore, RateLimitStore, RoutePath, StorageStore,
    StoreName, Subject, SubjectId, UploadRequest, Verdict, WorkspaceId,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Presents no credential.
pub(crate) struct NoCredentials;

impl Credentials for NoCredentials {
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
        credentials: Box::new(NoCredentials),
    }
}

/// A request that names a workspace.
pub(crate) fn request_for_workspace(named: Option<&str>) -> UploadRequest {
    UploadRequest {
        workspace: named.map(|id| WorkspaceId::parse(id).unwrap()),
        ..request_from(1)
    }
}

/// A signed-in user with claims.
pub(crate) fn user(id: &str, claims: &Value) -> Arc<Subject> {
    Arc::new(Subject {
        id: SubjectId::parse(id).unwrap(),
        identity: IdentityName::parse("app").unwrap(),
        session: false,
        claims: claims.as_object().unwrap().clone(),
        expires_at: None,
    })
}

pub(crate) fn member_of(workspace: &str, role: Option<&str>) -> Membership {
    Membership {
        workspace: WorkspaceId::parse(workspace).unwrap(),
        role: role.map(str::to_owned),
        other_roles: Vec::new(),
    }
}

/// The settings of a policy, as a config file has them.
pub(crate) fn settings<K: DeserializeOwned>(table: &str) -> K {
    toml::from_str(table).unwrap_or_else(|error| panic!("{table}: {error}"))
}

/// The keys of the faults that a kind finds in its settings.
pub(crate) fn faults_of(settings: &impl PolicyKind) -> Vec<(&'static str, String)> {
    let mut findings = Findings::default();
    settings.check(&mut findings);
    findings.faults
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

/// Builds the policy named `policy`.
pub(crate) fn build(
    settings: &impl PolicyKind,
    ports: &TestPorts,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Policy> {
    rebuild(settings, ports, clock, None)
}

/// Builds the policy named `policy` after a reload of the config.
pub(crate) fn rebuild(
    settings: &impl PolicyKind,
    ports: &TestPorts,
    clock: Arc<dyn Clock>,
    earlier: Option<Arc<dyn Policy>>,
) -> Arc<dyn Policy> {
    let context = BuildContext {
        name: &PolicyName::parse("policy").unwrap(),
        clock: &clock,
        ports,
        earlier,
    };
    settings.build(context).unwrap()
}

/// Asks a policy that does not wait.
pub(crate) fn decide(
    policy: &dyn Policy,
    request: &UploadRequest,
    facts: &Facts,
    pass: Pass,
) -> Result<Decision, Fault> {
    let evaluating = PolicyInput {
        request,
        facts,
        pass,
    };
    let decision = policy.decide(evaluating).now_or_never();
    decision.expect("the policy does not wait")
}

/// The code of the denial, if it is one.
pub(crate) fn denial_code(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Deny(denial) => Some(denial.code()),
        Verdict::Allow | Verdict::Hold(_) => None,
    }
}

/// Runs a future whose parts only wait for [`yield_now`].
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut polls = (0..100).map(|_| future.as_mut().now_or_never());
    polls.find_map(|result| result).expect("the future ends")
}

/// Lets the other futures run once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a policy under test has outside of itself. A test sets the ports that its policy uses.
#[derive(Default)]
pub(crate) struct TestPorts {
    pub(crate) quotas: Option<Arc<dyn QuotaStore>>,
    pub(crate) rate_limits: Option<Arc<dyn RateLimitStore>>,
    pub(crate) storage: Option<Arc<dyn StorageStore>>,
    pub(crate) memberships: Option<Arc<dyn Memberships>>,
    pub(crate) decider: Option<Arc<dyn Decider>>,
}

impl Ports for TestPorts {
    fn accept(&self, names: &[IdentityName]) -> Result<AcceptedIdentities, BuildError> {
        let positions = (0..names.len()).collect();
        Ok(AcceptedIdentities::new(names.first().cloned(), positions))
    }

    fn quotas(&self, _: &StoreName) -> Result<Arc<dyn QuotaStore>, BuildError> {
        Ok(self.quotas.clone().expect("the test has a store of quotas"))
    }

    fn rate_limits(&self, _: &StoreName) -> Result<Arc<dyn RateLimitStore>, BuildError> {
        let store = self.rate_limits.clone();
        Ok(store.expect("the test has a store of rate limits"))
    }

    fn storage(&self, _: &StoreName) -> Result<Arc<dyn StorageStore>, BuildError> {
        Ok(self
            .storage
            .clone()
            .expect("the test has a store of storage"))
    }

    fn memberships(
        &self,
        _: MembershipSource<'_>,
        _: CallSettings,
    ) -> Result<Arc<dyn Memberships>, BuildError> {
        Ok(self.memberships.clone().expect("the test has memberships"))
    }

    fn decider(
        &self,
        _: &Endpoint,
        _: Protocol,
        _: CallSettings,
    ) -> Result<Arc<dyn Decider>, BuildError> {
        Ok(self.decider.clone().expect("the test has a service"))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Default)]
pub(crate) struct StoppedClock {
    elapsed: Mutex<Duration>,
    now: Mutex<Timestamp>,
}

impl StoppedClock {
    /// Shows this time of day.
    pub(crate) fn at(time: &str) -> Self {
        let clock = Self::default();
        clock.set(time);
        clock
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }

    /// Sets the time of day, forwards or backwards.
    pub(crate) fn set(&self, time: &str) {
        *self.now.lock().unwrap() = time.parse().unwrap();
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }
}

/// Denies every request.
pub(crate) struct Deny;

impl Policy for Deny {
    fn decide<'a>(&'a self, _: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(ready(Ok(Decision::from(Verdict::Deny(
            Denial::NotSignedIn,
        )))))
    }
}
