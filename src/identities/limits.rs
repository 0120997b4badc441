//! The limits of `[server]`, which apply regardless of policies: `failures` per address, `reads` per subject.
//!
//! `failures` limits failed credentials that cost a signature check or a call to another service. Past the limit, the
//! address causes no more calls; what the gate can check by itself continues. A running call counts like a failure,
//! because it may fail: a call that would exceed the limit waits until other calls have ended.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Once},
};

use parking_lot::Mutex;
use policies::{AttemptResult, Clock, Denial, KeyedLimit, KeyedLimitSettings, Subject, network};
use tokio::sync::oneshot;

use super::{client_address::ClientAddress, request_view::RequestView};
use crate::config::server::ServerSettings;

/// The state of the limits.
pub struct ServerLimits {
    failures: Arc<FailureLimit>,
    proxies: ClientAddress,
    reads: KeyedLimit,
}

/// The limits that apply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliedLimits {
    /// For a request that an operator describes.
    None,
    /// `failures`
    Failures,
    /// `failures` and `reads`
    FailuresAndReads,
}

impl ServerLimits {
    #[must_use]
    pub fn new(settings: &ServerSettings, proxies: &ClientAddress, clock: &Arc<dyn Clock>) -> Self {
        Self {
            failures: Arc::new(FailureLimit::new(&settings.failures, clock.clone())),
            proxies: proxies.clone(),
            reads: KeyedLimit::new(&settings.reads, clock.clone()),
        }
    }

    /// Counts a read of `subject`.
    ///
    /// # Errors
    ///
    /// If the subject is past the limit.
    pub(super) fn count_read(&self, subject: &Subject) -> Result<(), Denial> {
        match self.reads.take(subject.id.as_str()) {
            AttemptResult::Allowed { .. } => Ok(()),
            AttemptResult::Denied { retry_after, .. } => Err(Denial::ServerLimited {
                key: "reads",
                retry_after,
                reached: self.reads.reached(format!("user={}", subject.id)),
            }),
        }
    }
}

/// Counts failed credentials by address.
struct FailureLimit {
    limit: KeyedLimit,
    /// Only addresses with a call.
    calls: Mutex<HashMap<IpAddr, AddressCalls>>,
    /// Logs once that the limit is off.
    warning: Once,
}

/// The calls to other services for one address.
#[derive(Default)]
struct AddressCalls {
    running: u32,
    waiting: VecDeque<oneshot::Sender<Call>>,
}

impl FailureLimit {
    fn new(settings: &KeyedLimitSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            limit: KeyedLimit::new(settings, clock),
            calls: Mutex::default(),
            warning: Once::new(),
        }
    }

    /// Logs once that the limit is off for an untrusted proxy.
    fn warn_of_untrusted_proxy(&self, view: &dyn RequestView, proxies: &ClientAddress) {
        if !self.warning.is_completed() && proxies.is_untrusted_proxy(view) {
            self.warning.call_once(|| {
                tracing::warn!(
                    peer = view.peer().map(|peer| tracing::field::display(peer.ip())),
                    "[server] failures is off for a peer that sends forwarding headers; if it is a proxy, add it to \
                     trusted_proxies"
                );
            });
        }
    }

    /// Returns how many calls of an address may run: as many as may still fail.
    ///
    /// # Errors
    ///
    /// If the address is past the limit.
    fn max_calls(&self, address: IpAddr) -> Result<u32, Denial> {
        match self.limit.peek(&address.to_string()) {
            // `remaining` does not include the next one.
            AttemptResult::Allowed { remaining, .. } => Ok(remaining.saturating_add(1)),
            AttemptResult::Denied { retry_after, .. } => Err(Denial::ServerLimited {
                key: "failures",
                retry_after,
                reached: self.limit.reached(format!("ip={address}")),
            }),
        }
    }

    fn count(&self, address: IpAddr) {
        self.limit.take(&address.to_string());
    }

    /// Starts a call, or queues it.
    fn start_call(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<Result<Call, oneshot::Receiver<Call>>, Denial> {
        let mut calls = self.calls.lock();
        let max = self.max_calls(address)?;
        let calls = calls.entry(address).or_default();
        Ok(if calls.running < max {
            calls.running += 1;
            Ok(Call::new(self, address))
        } else {
            let (call, queued) = oneshot::channel();
            calls.waiting.push_back(call);
            Err(queued)
        })
    }

    /// Starts the calls that waited for one that has ended.
    fn end_call(self: &Arc<Self>, address: IpAddr) {
        let mut calls = self.calls.lock();
        let Entry::Occupied(mut entry) = calls.entry(address) else {
            return;
        };
        let calls = entry.get_mut();
        calls.running = calls.running.saturating_sub(1);
        match self.max_calls(address) {
            // The requests try again, and get the denial.
            Err(_) => calls.waiting.clear(),
            Ok(max) => {
                while calls.running < max
                    && let Some(waiting) = calls.waiting.pop_front()
                {
                    match waiting.send(Call::new(self, address)) {
                        Ok(()) => calls.running += 1,
                        // The client has disconnected.
                        Err(mut unsent) => unsent.counted = None,
                    }
                }
            }
        }
        if calls.running == 0 && calls.waiting.is_empty() {
            entry.remove();
        }
    }
}

/// A call to another service for a credential. Once it runs, it counts as a failure unless [`finish`](Self::finish) says
/// otherwise, because the client may disconnect before the response.
#[must_use]
pub(super) struct Call {
    /// `None` if the limit is off.
    counted: Option<(Arc<FailureLimit>, IpAddr)>,
    has_failed: bool,
}

impl Call {
    fn new(limit: &Arc<FailureLimit>, address: IpAddr) -> Self {
        Self {
            counted: Some((limit.clone(), address)),
            has_failed: false,
        }
    }

    pub(super) fn finish(mut self, has_failed: bool) {
        self.has_failed = has_failed;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some((limit, address)) = self.counted.take() {
            if self.has_failed {
                limit.count(address);
            }
            limit.end_call(address);
        }
    }
}

/// Counts the failed credentials of one request under its client's address.
pub(crate) struct FailureTracker<'a> {
    limits: &'a ServerLimits,
    view: &'a dyn RequestView,
    applied: AppliedLimits,
    /// Whether the credential has cost something.
    has_cost: Cell<bool>,
}

impl<'a> FailureTracker<'a> {
    pub(super) fn new(
        limits: &'a ServerLimits,
        view: &'a dyn RequestView,
        applied: AppliedLimits,
    ) -> Self {
        if applied != AppliedLimits::None {
            limits
                .failures
                .warn_of_untrusted_proxy(view, &limits.proxies);
        }
        Self {
            limits,
            view,
            applied,
            has_cost: Cell::new(false),
        }
    }

    pub(super) fn proxies(&self) -> &'a ClientAddress {
        &self.limits.proxies
    }

    /// The address under which failures count, unless the limit is off.
    fn address(&self) -> Option<IpAddr> {
        let proxies = self.proxies();
        let is_on = self.applied != AppliedLimits::None && !proxies.is_untrusted_proxy(self.view);
        is_on.then(|| network(proxies.of(self.view)))
    }

    /// Waits until the gate may call another service for the credential.
    ///
    /// # Errors
    ///
    /// If the address is past the limit.
    pub(super) async fn start_call(&self) -> Result<Call, Denial> {
        let Some(address) = self.address() else {
            return Ok(Call {
                counted: None,
                has_failed: false,
            });
        };
        let mut call = loop {
            match self.limits.failures.start_call(address)? {
                Ok(call) => break call,
                Err(queued) => {
                    if let Ok(call) = queued.await {
                        break call;
                    }
                }
            }
        };
        call.has_failed = true;
        Ok(call)
    }

    /// Checks that the credential may cause a fetch of keys, which is a cost.
    ///
    /// # Errors
    ///
    /// If the address is past the limit.
    pub(super) fn check_fetch(&self) -> Result<(), Denial> {
        if let Some(address) = self.address() {
            self.limits.failures.max_calls(address)?;
        }
        self.record_cost();
        Ok(())
    }

    /// Records that the gate checks a signature or fetches keys.
    pub(super) fn record_cost(&self) {
        self.has_cost.set(true);
    }

    /// Counts a failed credential, if it has cost something.
    pub(super) fn record_failure(&self) {
        if self.has_cost.take()
            && let Some(address) = self.address()
        {
            self.limits.failures.count(address);
        }
    }
}
