//! `[server] failures`: how many failed credentials of one address may cost something.
//!
//! A credential costs something if the gate checks its signature, or asks another service about it. Each such credential
//! that fails is counted under its client's address. Past the limit, the address causes no more calls to other services;
//! what the gate can judge by itself goes on. Calls that run are part of the count, because any of them may fail: a call
//! for which no room is left waits until others have ended.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
};

use policies::{AttemptResult, Clock, Denial, KeyedLimit, KeyedLimitSettings, Subject, network};
use tokio::sync::oneshot;

use super::{client_address::ClientAddress, request_view::PresentedCredentials};
use crate::config::server::ServerSettings;

/// Counts failed credentials by address.
pub(crate) struct Failures {
    limit: KeyedLimit,
    /// The addresses that have a call running.
    calls: Mutex<HashMap<IpAddr, Calls>>,
    /// Whether the log says that the limit is off.
    warned: Once,
}

/// The calls to other services that one address causes.
#[derive(Default)]
struct Calls {
    running: u32,
    waiting: VecDeque<oneshot::Sender<Call>>,
}

/// What judging one request costs, and whose it is.
pub(crate) struct Attempt<'a> {
    pub(super) failures: &'a Arc<Failures>,
    pub(super) request: &'a dyn PresentedCredentials,
    pub(super) proxies: &'a ClientAddress,
    /// Whether a client sent the request.
    pub(super) is_counted: bool,
    has_cost: Cell<bool>,
}

impl Failures {
    pub(super) fn new(settings: &KeyedLimitSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            limit: KeyedLimit::new(settings, clock),
            calls: Mutex::default(),
            warned: Once::new(),
        }
    }

    /// Says once that the limit is off for a proxy that the config does not name.
    fn warn_of(&self, request: &dyn PresentedCredentials, proxies: &ClientAddress) {
        if !self.warned.is_completed() && proxies.is_unnamed_proxy(request) {
            self.warned.call_once(|| {
                tracing::warn!(
                    peer = request.peer().map(|peer| tracing::field::display(peer.ip())),
                    "[server] failures is off for a peer that sends forwarding headers; if it is a proxy, name it in \
                     trusted_proxies"
                );
            });
        }
    }

    /// How many calls of an address may run: as many as may still fail.
    ///
    /// # Errors
    ///
    /// If too many credentials of the address have failed.
    fn room(&self, address: IpAddr) -> Result<u32, Denial> {
        match self.limit.peek(&address.to_string()) {
            // One more than remain after this one.
            AttemptResult::Allowed { remaining, .. } => Ok(remaining.saturating_add(1)),
            AttemptResult::Denied { retry_after, .. } => Err(Denial::ServerLimited {
                key: "failures",
                retry_after,
            }),
        }
    }

    fn count(&self, address: IpAddr) {
        self.limit.take(&address.to_string());
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<IpAddr, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a call its room, or a place in the queue.
    fn begin(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<Result<Call, oneshot::Receiver<Call>>, Denial> {
        let mut calls = self.calls();
        let room = self.room(address)?;
        let calls = calls.entry(address).or_default();
        Ok(if calls.running < room {
            calls.running += 1;
            Ok(Call::new(self, address))
        } else {
            let (call, waiting) = oneshot::channel();
            calls.waiting.push_back(call);
            Err(waiting)
        })
    }

    /// Gives the room of a call that has ended to those that wait.
    fn end(self: &Arc<Self>, address: IpAddr) {
        let mut calls = self.calls();
        let Entry::Occupied(mut entry) = calls.entry(address) else {
            return;
        };
        let calls = entry.get_mut();
        calls.running = calls.running.saturating_sub(1);
        match self.room(address) {
            // Those that wait learn it when they ask again.
            Err(_) => calls.waiting.clear(),
            Ok(room) => {
                while calls.running < room
                    && let Some(waiting) = calls.waiting.pop_front()
                {
                    match waiting.send(Call::new(self, address)) {
                        Ok(()) => calls.running += 1,
                        // Its request has gone away.
                        Err(mut unsent) => unsent.of = None,
                    }
                }
            }
        }
        if calls.running == 0 && calls.waiting.is_empty() {
            entry.remove();
        }
    }
}

/// A call to another service, for one credential. It is counted as failed unless it is told otherwise: a client that goes
/// away has caused it all the same.
#[must_use]
pub(super) struct Call {
    of: Option<(Arc<Failures>, IpAddr)>,
    has_failed: bool,
}

impl Call {
    fn new(failures: &Arc<Failures>, address: IpAddr) -> Self {
        Self {
            of: Some((failures.clone(), address)),
            has_failed: false,
        }
    }

    /// Ends the call.
    pub(super) fn end(mut self, has_failed: bool) {
        self.has_failed = has_failed;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some((failures, address)) = self.of.take() {
            if self.has_failed {
                failures.count(address);
            }
            failures.end(address);
        }
    }
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        failures: &'a Arc<Failures>,
        request: &'a dyn PresentedCredentials,
        proxies: &'a ClientAddress,
        is_counted: bool,
    ) -> Self {
        if is_counted {
            failures.warn_of(request, proxies);
        }
        Self {
            failures,
            request,
            proxies,
            is_counted,
            has_cost: Cell::new(false),
        }
    }

    /// The address that failures count under, unless the limit is off.
    fn address(&self) -> Option<IpAddr> {
        let is_on = self.is_counted && !self.proxies.is_unnamed_proxy(self.request);
        is_on.then(|| network(self.proxies.of(self.request)))
    }

    /// Waits until another service may be asked about the credential.
    ///
    /// # Errors
    ///
    /// If too many credentials of the address have failed.
    pub(super) async fn begin_call(&self) -> Result<Call, Denial> {
        let mut call = match self.address() {
            None => Call {
                of: None,
                has_failed: false,
            },
            Some(address) => loop {
                match self.failures.begin(address)? {
                    Ok(call) => break call,
                    Err(waiting) => {
                        if let Ok(call) = waiting.await {
                            break call;
                        }
                    }
                }
            },
        };
        call.has_failed = true;
        Ok(call)
    }

    /// Whether keys may be fetched again for the credential, which is a cost then.
    ///
    /// # Errors
    ///
    /// If too many credentials of the address have failed.
    pub(super) fn may_fetch(&self) -> Result<(), Denial> {
        if let Some(address) = self.address() {
            self.failures.room(address)?;
        }
        self.note_cost();
        Ok(())
    }

    /// Notes that a signature is checked.
    pub(super) fn note_cost(&self) {
        self.has_cost.set(true);
    }

    /// Counts the failure of a credential that cost something here.
    pub(super) fn fail(&self) {
        if self.has_cost.take()
            && let Some(address) = self.address()
        {
            self.failures.count(address);
        }
    }
}

/// What clients have used up of the limits.
pub struct ServerLimits {
    pub(super) failures: Arc<Failures>,
    /// Tells the clients apart.
    pub(super) proxies: ClientAddress,
    reads: KeyedLimit,
}

/// Which of the limits a request is subject to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// None: an operator describes the request.
    Nothing,
    /// `failures`
    Failures,
    /// `failures` and `reads`
    Reads,
}

impl ServerLimits {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(settings: &ServerSettings, proxies: &ClientAddress, clock: &Arc<dyn Clock>) -> Self {
        Self {
            failures: Arc::new(Failures::new(&settings.failures, clock.clone())),
            proxies: proxies.clone(),
            reads: KeyedLimit::new(&settings.reads, clock.clone()),
        }
    }

    /// Counts a read of `subject`.
    ///
    /// # Errors
    ///
    /// If the subject has read too often.
    pub(super) fn read(&self, subject: &Subject) -> Result<(), Denial> {
        match self.reads.take(subject.id.as_str()) {
            AttemptResult::Allowed { .. } => Ok(()),
            AttemptResult::Denied { retry_after, .. } => Err(Denial::ServerLimited {
                key: "reads",
                retry_after,
            }),
        }
    }
}
