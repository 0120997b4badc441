//! The open stores, and the ports through which policies and sessions use them.

use std::sync::Arc;

use policies::{Fault, QuotaStore, RateLimitStore, StoreName, StoreUse};

use super::{
    Surroundings,
    backend::Probe,
    fault::StoreError,
    kind::Opening,
    look::Look,
    members::MemberDatabase,
    sessions::SessionBackend,
    settings::{StoreUrl, UsedStore},
};

#[derive(Clone)]
pub struct Stores(Vec<OpenStore>);

#[derive(Clone)]
pub struct OpenStore {
    pub name: StoreName,
    url: StoreUrl,
    /// By use.
    parts: Vec<(Vec<StoreUse>, Part)>,
}

/// What is open for some uses of a store. The ports share connections and probes.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) probe: Arc<dyn Probe>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone)]
pub(super) enum Port {
    Quotas(Arc<dyn QuotaStore>),
    RateLimits(Arc<dyn RateLimitStore>),
    Sessions(Arc<dyn SessionBackend>),
    Memberships(Arc<dyn MemberDatabase>),
}

#[derive(Clone, Copy)]
pub enum Access<'a> {
    /// Open for use. Stores of the earlier rules whose URL and uses are unchanged stay open, with their earlier
    /// timeout.
    Use(Option<&'a Stores>),
    /// Read-only. Another gate may have the store open.
    Look,
    /// As if all counters were empty.
    Ignore,
}

impl OpenStore {
    fn open(
        UsedStore(name, settings, uses): UsedStore<'_>,
        surroundings: &Surroundings,
        access: Access<'_>,
    ) -> Result<Self, StoreError> {
        let url = &settings.url;
        let earlier = match access {
            Access::Use(earlier) => earlier,
            Access::Look | Access::Ignore => None,
        };
        let mut earlier = earlier.into_iter().flat_map(Stores::iter);
        let earlier = earlier.find(|open| open.name == *name && open.url == *url);
        let together = if url.kind.is_opened_once {
            uses.len()
        } else {
            1
        };
        let parts = uses.chunks(together.max(1)).map(|uses| {
            let mut earlier = earlier.into_iter().flat_map(|open| &open.parts);
            if let Some(part) = earlier.find(|(earlier, _)| *earlier == uses) {
                return Ok(part.clone());
            }
            let opening = Opening {
                name,
                uses,
                only_looks: !matches!(access, Access::Use(_)),
                timeout: settings.timeout.get(),
                password: url.password.as_ref(),
                surroundings,
            };
            let part = match access {
                Access::Ignore if !opening.is_for(StoreUse::Memberships) => Look::at_nothing(name),
                _ => url.location.open(&opening)?,
            };
            if !opening.only_looks {
                part.probe.begin();
            }
            Ok((uses.to_vec(), part))
        });
        let parts = parts.collect::<Result<_, _>>();
        Ok(Self {
            parts: parts.map_err(|source| StoreError {
                name: name.clone(),
                source,
            })?,
            name: name.clone(),
            url: url.clone(),
        })
    }

    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.parts.is_empty()
    }

    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.probe.is_healthy())
    }

    /// Tests whether it supports the uses that it is opened for. Memberships are tested by their queries.
    pub async fn try_it(&self) -> Result<(), String> {
        for (uses, part) in &self.parts {
            if *uses != [StoreUse::Memberships] {
                part.probe.try_it().await?;
            }
        }
        Ok(())
    }
}

impl Stores {
    /// Opens `stores`. Servers are connected in the background, so that a gate starts without them.
    pub fn open<'a>(
        stores: impl IntoIterator<Item = UsedStore<'a>>,
        surroundings: &Surroundings,
        access: Access<'_>,
    ) -> Result<Self, StoreError> {
        let stores = stores.into_iter();
        let open = stores.map(|store| OpenStore::open(store, surroundings, access));
        open.collect::<Result<_, _>>().map(Self)
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenStore> {
        self.0.iter()
    }

    fn port<P>(&self, store: &StoreName, pick: impl Fn(&Port) -> Option<P>) -> Result<P, Fault> {
        let open = self.iter().filter(|open| open.name == *store);
        let mut parts = open.flat_map(|open| &open.parts);
        let port = parts.find_map(|(_, part)| part.ports.iter().find_map(&pick));
        port.ok_or_else(|| Fault::Store {
            store: store.clone(),
            source: "it is not open for this use".into(),
        })
    }
}

macro_rules! port {
    ($what:literal, $name:ident, $variant:ident, $port:ty) => {
        impl Stores {
            #[doc = $what]
            pub fn $name(&self, store: &StoreName) -> Result<Arc<$port>, Fault> {
                self.port(store, |port| match port {
                    Port::$variant(port) => Some(port.clone()),
                    _ => None,
                })
            }
        }
    };
}

port!("Where quotas are counted.", quotas, Quotas, dyn QuotaStore);
port!(
    "Where rate limits are counted.",
    rate_limits,
    RateLimits,
    dyn RateLimitStore
);
port!(
    "Where sessions are kept.",
    sessions,
    Sessions,
    dyn SessionBackend
);
port!(
    "Where memberships are looked up.",
    memberships,
    Memberships,
    dyn MemberDatabase
);
