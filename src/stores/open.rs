//! The stores that are open, and the ports through which policies and sessions use them.

use std::sync::Arc;

use policies::{Fault, QuotaStore, RateLimitStore, StoreName, settings::StoreUse};

use super::{
    Surroundings,
    backend::Probe,
    fault::{OpenError, StoreError},
    kind::{Location, Opening},
    look::Uncounted,
    members::MemberDatabase,
    sessions::SessionBackend,
    settings::{StoreUrl, UsedStore},
};

/// All stores that are open.
#[derive(Clone, Default)]
pub struct Stores(Vec<OpenStore>);

/// A store that is open for what it is used for.
#[derive(Clone)]
pub struct OpenStore {
    /// Its name.
    pub name: StoreName,
    url: StoreUrl,
    parts: Vec<Part>,
}

/// What is open for some uses of a store: the ports share connections and probes.
#[derive(Clone)]
pub(super) struct Part {
    uses: Vec<StoreUse>,
    probe: Arc<dyn Probe>,
    ports: Vec<Port>,
}

/// A port of a store.
#[derive(Clone)]
pub(super) enum Port {
    Quotas(Arc<dyn QuotaStore>),
    RateLimits(Arc<dyn RateLimitStore>),
    Sessions(Arc<dyn SessionBackend>),
    Memberships(Arc<dyn MemberDatabase>),
}

/// A store is not open for what it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("the store is not open for {wanted:?}")]
pub struct NotOpen {
    /// Which store.
    pub store: StoreName,
    /// What it is asked for.
    pub wanted: StoreUse,
}

impl From<NotOpen> for Fault {
    fn from(error: NotOpen) -> Self {
        Self::Store {
            store: error.store.clone(),
            source: Box::new(error),
        }
    }
}

impl Part {
    pub(super) fn new(
        opening: &Opening<'_>,
        probe: impl Probe + 'static,
        ports: impl Into<Vec<Port>>,
    ) -> Self {
        Self {
            uses: opening.uses.to_vec(),
            probe: Arc::new(probe),
            ports: ports.into(),
        }
    }

    /// Whether it is a database of memberships, which is tried by its queries.
    fn is_queried(&self) -> bool {
        self.uses == [StoreUse::Memberships]
    }
}

impl OpenStore {
    fn new(
        store: &UsedStore<'_>,
        surroundings: &Surroundings,
        open: impl Fn(&dyn Location, &Opening<'_>) -> Result<Part, OpenError>,
    ) -> Result<Self, StoreError> {
        let url = &store.settings.url;
        let together = if url.kind.is_opened_once {
            store.uses.len()
        } else {
            1
        };
        let parts = store.uses.chunks(together.max(1)).map(|uses| {
            let opening = Opening {
                name: store.name,
                uses,
                timeout: store.settings.timeout.get(),
                password: url.password.as_ref(),
                surroundings,
            };
            open(&*url.location, &opening)
        });
        Ok(Self {
            parts: parts
                .collect::<Result<_, _>>()
                .map_err(|source| StoreError {
                    name: store.name.clone(),
                    source,
                })?,
            name: store.name.clone(),
            url: url.clone(),
        })
    }

    /// Whether anything uses it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Whether everything that it is used for works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.parts.iter().all(|part| part.probe.is_healthy())
    }

    /// Finds out whether it can be used for what it is opened for, memberships excepted.
    ///
    /// # Errors
    ///
    /// What its backend says.
    pub async fn try_it(&self) -> Result<(), String> {
        for part in self.parts.iter().filter(|part| !part.is_queried()) {
            part.probe.try_it().await?;
        }
        Ok(())
    }
}

impl Stores {
    /// Opens `stores`. Those of `earlier` which are where they were, and are used for the same, stay open with the
    /// timeout that they were opened with. Servers are connected to in the background, so that a gate starts without
    /// them.
    ///
    /// # Errors
    ///
    /// What keeps the first that fails from being opened.
    pub fn open<'a>(
        stores: impl IntoIterator<Item = UsedStore<'a>>,
        surroundings: &Surroundings,
        earlier: &Self,
    ) -> Result<Self, StoreError> {
        let open = |store: UsedStore<'_>| {
            let same =
                |open: &&OpenStore| open.name == *store.name && open.url == store.settings.url;
            let earlier = earlier.0.iter().find(same);
            OpenStore::new(&store, surroundings, |location, opening| {
                let mut parts = earlier.into_iter().flat_map(|open| &open.parts);
                if let Some(part) = parts.find(|part| part.uses == opening.uses) {
                    return Ok(part.clone());
                }
                let part = location.open(opening)?;
                part.probe.begin();
                Ok(part)
            })
        };
        stores
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Opens `stores` beside a gate that has them open, to look at them. What they have counted is seen if `counted`;
    /// otherwise it is as if nothing were.
    ///
    /// # Errors
    ///
    /// What keeps the first that fails from being opened.
    pub fn look_at<'a>(
        stores: impl IntoIterator<Item = UsedStore<'a>>,
        surroundings: &Surroundings,
        counted: bool,
    ) -> Result<Self, StoreError> {
        let look = |store: UsedStore<'_>| {
            OpenStore::new(&store, surroundings, |location, opening| {
                if counted || opening.is_for(StoreUse::Memberships) {
                    location.look_at(opening)
                } else {
                    Ok(Uncounted::part(opening))
                }
            })
        };
        stores
            .into_iter()
            .map(look)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &OpenStore> {
        self.0.iter()
    }

    fn port<P>(
        &self,
        store: &StoreName,
        wanted: StoreUse,
        pick: impl FnMut(&Port) -> Option<P>,
    ) -> Result<P, NotOpen> {
        let open = self.0.iter().filter(|open| open.name == *store);
        let parts = open.flat_map(|open| &open.parts);
        let mut ports = parts.flat_map(|part| &part.ports);
        ports.find_map(pick).ok_or_else(|| NotOpen {
            store: store.clone(),
            wanted,
        })
    }

    /// Where quotas are counted.
    ///
    /// # Errors
    ///
    /// When the store is not open for that; so below.
    pub fn quotas(&self, store: &StoreName) -> Result<Arc<dyn QuotaStore>, NotOpen> {
        self.port(store, StoreUse::Quotas, |port| match port {
            Port::Quotas(port) => Some(port.clone()),
            _ => None,
        })
    }

    /// Where rate limits are counted.
    ///
    /// # Errors
    ///
    /// When the store is not open for that.
    pub fn rate_limits(&self, store: &StoreName) -> Result<Arc<dyn RateLimitStore>, NotOpen> {
        self.port(store, StoreUse::RateLimits, |port| match port {
            Port::RateLimits(port) => Some(port.clone()),
            _ => None,
        })
    }

    /// Where sessions are kept.
    ///
    /// # Errors
    ///
    /// When the store is not open for that.
    pub fn sessions(&self, store: &StoreName) -> Result<Arc<dyn SessionBackend>, NotOpen> {
        self.port(store, StoreUse::Sessions, |port| match port {
            Port::Sessions(port) => Some(port.clone()),
            _ => None,
        })
    }

    /// Where memberships are looked up.
    ///
    /// # Errors
    ///
    /// When the store is not open for that.
    pub fn memberships(&self, store: &StoreName) -> Result<Arc<dyn MemberDatabase>, NotOpen> {
        self.port(store, StoreUse::Memberships, |port| match port {
            Port::Memberships(port) => Some(port.clone()),
            _ => None,
        })
    }
}
