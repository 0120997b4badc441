//! The open stores, and the ports through which policies and sessions use them.

use std::sync::Arc;

use jiff::Timestamp;
use policies::{Fault, Interval, QuotaStore, RateLimitStore, StoreName, StoreUse};

use super::{
    fault::{StoreError, StoreFault},
    file_id::FilePlace,
    kind::{LeaseStore, MemberDatabase, OpenOptions, OpenPorts, SessionBackend, StoreContext},
    prefix::{DEFAULT, KeyPrefix},
    records::RecordStore,
    remark::Remark,
    settings::{Store, StoreUrl, UsedStore},
    sqlite::ReadOnly,
};

#[derive(Clone)]
pub struct Stores(Vec<OpenStore>);

#[derive(Clone)]
pub struct OpenStore {
    pub name: StoreName,
    /// With which it was opened.
    pub timeout: Interval,
    url: StoreUrl,
    /// The file that it is, if it is one.
    file: Option<FilePlace>,
    ports: Vec<(Vec<StoreUse>, OpenPorts)>,
}

#[derive(Clone, Copy)]
pub enum Access<'a> {
    /// Stores of the earlier rules whose URL, password and uses are unchanged stay open, and so do those that count in the same
    /// file under another name. A store in a file keeps its earlier timeout, because only one gate opens it at a time; the
    /// others are opened again with theirs.
    ReadWrite(Option<&'a Stores>),
    /// Another gate may have the store open.
    ReadOnly,
    /// Read-only, as if all counters were empty.
    Empty,
}

/// Groups uses that share an opening: the first are those that are written in a database.
fn opened_together(uses: Vec<StoreUse>, all: bool) -> Vec<Vec<StoreUse>> {
    let (written, others): (Vec<_>, Vec<_>) =
        uses.into_iter().partition(|of| all || is_written(of));
    let others = others.into_iter().map(|of| vec![of]);
    let written = Some(written).filter(|written| !written.is_empty());
    written.into_iter().chain(others).collect()
}

/// Whether quotas and records share the opening for this use.
fn is_written(of: &StoreUse) -> bool {
    matches!(of, StoreUse::Quotas | StoreUse::Uploads)
}

impl OpenStore {
    fn open(
        UsedStore(name, Store { url, settings }, uses): UsedStore<'_>,
        context: &StoreContext,
        access: Access<'_>,
    ) -> Result<Self, StoreError> {
        let before = match access {
            Access::ReadWrite(before) => before,
            Access::ReadOnly | Access::Empty => None,
        };
        let is_remote = url.kind.takes_password;
        let same = before
            .into_iter()
            .flat_map(Stores::iter)
            .find(|open| open.is(name, url) && (open.timeout == settings.timeout || !is_remote));
        let counters = before.and_then(|before| before.counters_in(&url.file_place()?));
        let kept_ports = |uses: &[StoreUse]| {
            // A file is open once for all that is counted and recorded in it.
            let counts = uses.iter().any(is_written);
            let counters = counters.filter(|_| counts);
            let mut kept = same.into_iter().chain(counters);
            kept.find_map(|open| {
                let mut ports = open.ports.iter();
                let is_kept = |of: &[StoreUse]| {
                    of == uses || (counters.is_some() && of.iter().any(is_written))
                };
                let (_, ports) =
                    ports.find(|(of, ports)| is_kept(of) && !ports.health.must_reopen())?;
                Some((open.timeout, ports.clone()))
            })
        };
        let mut timeout = settings.timeout;
        let groups = opened_together(uses, url.kind.is_opened_once);
        let ports = groups.into_iter().map(|uses| {
            if let Some((kept, open)) = kept_ports(&uses) {
                timeout = kept;
                return Ok((uses, open));
            }
            let options = OpenOptions {
                name,
                uses: &uses,
                read_only: !matches!(access, Access::ReadWrite(_)),
                timeout: settings.timeout.get(),
                password: url.password.as_ref(),
                sentinel: url.sentinel.as_ref(),
                prefix: settings.prefix.as_ref().map_or(DEFAULT, KeyPrefix::as_str),
                tls: &url.tls,
                context,
            };
            let open = match access {
                Access::Empty if !options.is_for(StoreUse::Memberships) => {
                    ReadOnly::open(name, None)
                }
                _ => url.location.open(&options).map_err(|source| StoreError {
                    name: name.clone(),
                    source,
                })?,
            };
            if !options.read_only {
                open.health.start();
            }
            Ok((uses, open))
        });
        let ports = ports.collect::<Result<_, _>>()?;
        Ok(Self {
            ports,
            name: name.clone(),
            timeout,
            url: url.clone(),
            // Opening it creates the file.
            file: url.file_place(),
        })
    }

    fn is(&self, name: &StoreName, url: &StoreUrl) -> bool {
        self.name == *name && self.url == *url
    }

    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.ports.is_empty()
    }

    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.ports.iter().all(|(_, open)| open.health.is_healthy())
    }

    /// Whether it works for this use. A store that is not open for it has no such fault.
    #[must_use]
    pub fn is_healthy_for(&self, wanted: StoreUse) -> bool {
        let mut ports = self.ports.iter();
        ports.all(|(uses, open)| !uses.contains(&wanted) || open.health.is_healthy())
    }

    /// Tests whether the store can be read and written for each of its uses, and read for memberships.
    pub async fn check(&self) -> Result<(), StoreFault> {
        for (_, open) in &self.ports {
            open.health.check().await?;
        }
        Ok(())
    }

    /// What the operator should know of the store although it works.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        let mut remarks: Vec<Remark> = Vec::new();
        for remark in self
            .ports
            .iter()
            .flat_map(|(_, open)| open.health.remarks())
        {
            // Each use has connections of its own.
            if remarks.iter().all(|other| other.text != remark.text) {
                remarks.push(remark);
            }
        }
        remarks
    }

    /// Why the gate's promises may not hold, although the store works.
    #[must_use]
    pub fn degraded(&self) -> Option<String> {
        let mut remarks = self.remarks().into_iter();
        let degraded = remarks.find(|remark| remark.is_degraded);
        degraded.map(|remark| remark.text)
    }

    pub fn uses(&self) -> impl Iterator<Item = StoreUse> {
        self.ports.iter().flat_map(|(uses, _)| uses).copied()
    }

    /// The rights that the gate needs in a store of this kind.
    #[must_use]
    pub fn rights(&self) -> &'static str {
        self.url.kind.rights
    }

    /// The time of a store that several gates share; `None` for other stores.
    pub async fn time(&self) -> Option<Result<Timestamp, StoreFault>> {
        let time = self.port(|ports| ports.time.clone())?;
        Some(time.now().await)
    }

    fn port<P>(&self, pick: impl Fn(&OpenPorts) -> Option<P>) -> Option<P> {
        self.ports.iter().find_map(|(_, ports)| pick(ports))
    }
}

impl Stores {
    /// Servers are connected in the background, so that a gate starts without them.
    pub fn open<'a>(
        stores: impl IntoIterator<Item = UsedStore<'a>>,
        context: &StoreContext,
        access: Access<'_>,
    ) -> Result<Self, StoreError> {
        let stores = stores.into_iter();
        let open = stores.map(|store| OpenStore::open(store, context, access));
        open.collect::<Result<_, _>>().map(Self)
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenStore> {
        self.0.iter()
    }

    /// The store that counts in this file. A reload may give it another name, or write its path in another way, but
    /// only one store can have the file open.
    fn counters_in(&self, file: &FilePlace) -> Option<&OpenStore> {
        self.iter()
            .find(|open| open.file.as_ref() == Some(file) && open.uses().any(|of| is_written(&of)))
    }

    /// Gives stores that stayed open under another name their new one.
    pub(crate) fn rename(&self) {
        for OpenStore { name, ports, .. } in &self.0 {
            ports.iter().for_each(|(_, open)| open.health.rename(name));
        }
    }

    pub fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, Fault> {
        self.port(store, |ports| ports.quotas.clone())
    }

    pub fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, Fault> {
        self.port(store, |ports| ports.rate_limits.clone())
    }

    pub fn records(&self, store: &StoreName) -> Result<Arc<dyn RecordStore>, Fault> {
        self.port(store, |ports| ports.records.clone())
    }

    pub fn sessions(&self, store: &StoreName) -> Result<Arc<dyn SessionBackend>, Fault> {
        self.port(store, |ports| ports.sessions.clone())
    }

    pub fn memberships(&self, store: &StoreName) -> Result<Arc<dyn MemberDatabase>, Fault> {
        self.port(store, |ports| ports.memberships.clone())
    }

    /// The leases of the first store of the config that gates share. A database that the gate only reads has none.
    #[must_use]
    pub fn leases(&self) -> Option<Arc<dyn LeaseStore>> {
        self.iter()
            .find_map(|store| store.port(|ports| ports.leases.clone()))
    }

    fn port<P>(
        &self,
        store: &StoreName,
        pick: impl Fn(&OpenPorts) -> Option<P>,
    ) -> Result<P, Fault> {
        let mut open = self.iter().filter(|open| open.name == *store);
        open.find_map(|open| open.port(&pick))
            .ok_or_else(|| Fault::Store {
                store: store.clone(),
                source: "the store is not open for this use".into(),
            })
    }
}
