//! The kinds of identity, and `[identities.*]` of a config.

use std::{fmt, sync::Arc};

use policies::IdentityName;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::{
    forwarded::ForwardedSettings,
    introspection::IntrospectionSettings,
    jwt::JwtSettings,
    kind::{Build, BuildContext, Identity, IdentityKind},
    profile::{Profile, Profiles},
    remote::RemoteSettings,
    section::{OtherSections, Section},
    session::SessionIdentitySettings,
};
use crate::config::{
    document::{self, Reader, join},
    fault::unknown,
    named::Named,
};

/// The kinds of identity that a config can use.
#[derive(Clone, Debug)]
pub struct IdentityKinds(Vec<Kind>);

#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    read: fn(&mut Reader, &str, document::Value<'_>) -> Option<Arc<dyn IdentitySettings>>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Default for IdentityKinds {
    /// The gate's own kinds.
    fn default() -> Self {
        let mut kinds = Self(Vec::new());
        kinds.add::<JwtSettings>();
        kinds.add::<IntrospectionSettings>();
        kinds.add::<SessionIdentitySettings>();
        kinds.add::<ForwardedSettings>();
        kinds.add::<RemoteSettings>();
        kinds
    }
}

impl IdentityKinds {
    /// Adds a kind.
    ///
    /// # Panics
    ///
    /// If there is already a kind of this name.
    pub fn add<K: IdentityKind>(&mut self) {
        let name = K::NAME;
        let is_taken = self.0.iter().any(|kind| kind.name == name);
        assert!(!is_taken, "there is already a kind `{name}`");
        self.0.push(Kind {
            name,
            read: |reader, path, value| Some(Arc::new(reader.table::<K>(path, value)?)),
            schema: K::json_schema,
        });
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|kind| kind.name)
    }

    /// Reads the settings of an identity of the kind `name`.
    pub(crate) fn read(
        &self,
        name: &str,
        reader: &mut Reader,
        path: &str,
        value: document::Value<'_>,
    ) -> Option<Arc<dyn IdentitySettings>> {
        if let Some(kind) = self.0.iter().find(|kind| kind.name == name) {
            return (kind.read)(reader, path, value);
        }
        let message = unknown("identity kind", name, self.names());
        reader.fault(join(path, "kind"), message);
        None
    }

    /// Returns the schema of each kind's settings.
    pub(crate) fn schema(&self, generator: &mut SchemaGenerator) -> Vec<Value> {
        let kinds = self.0.iter().map(|kind| {
            let mut schema = (kind.schema)(generator).to_value();
            let tag = json!({ "type": "string", "const": kind.name });
            schema["properties"]["kind"] = tag;
            let required = schema["required"].as_array_mut().map(std::mem::take);
            let required = [json!("kind")]
                .into_iter()
                .chain(required.into_iter().flatten());
            schema["required"] = required.collect();
            schema
        });
        kinds.collect()
    }
}

/// The settings of an identity of any kind.
pub(crate) trait IdentitySettings: fmt::Debug + Send + Sync {
    fn profile(&self) -> Profile<'_>;

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build>;
}

impl<K: IdentityKind> IdentitySettings for K {
    fn profile(&self) -> Profile<'_> {
        IdentityKind::profile(self)
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        IdentityKind::resolve(self, section)
    }
}

/// The identities of a config file, in its order. An identity with unreadable settings has none.
pub(crate) struct ConfiguredIdentities(
    pub(crate) Vec<Named<IdentityName, Arc<dyn IdentitySettings>>>,
);

impl ConfiguredIdentities {
    pub(crate) fn profiles(&self) -> Profiles<'_> {
        let profiles = self.0.iter().map(|(name, settings)| {
            let settings = settings.as_ref();
            (name, settings.map(|settings| settings.profile()))
        });
        Profiles(profiles.collect())
    }

    /// Checks each identity and loads its secrets. Returns `None` if any has a fault.
    pub(crate) fn resolve(
        &self,
        reader: &mut Reader,
        others: OtherSections<'_>,
    ) -> Option<Vec<(IdentityName, ResolvedIdentity)>> {
        let profiles = self.profiles();
        let resolved = self.0.iter().map(|(name, settings)| {
            let mut section = Section {
                reader,
                path: format!("identities.{name}"),
                others,
                profiles: &profiles,
            };
            let settings = settings.clone()?;
            let build = settings.clone().resolve(&mut section)?;
            Some((name.clone(), ResolvedIdentity { settings, build }))
        });
        // Collected first, so that every identity reports its faults.
        let resolved: Vec<_> = resolved.collect();
        resolved.into_iter().collect()
    }
}

/// An identity of a valid config, with its secrets.
pub struct ResolvedIdentity {
    settings: Arc<dyn IdentitySettings>,
    build: Build,
}

impl ResolvedIdentity {
    #[must_use]
    pub fn profile(&self) -> Profile<'_> {
        self.settings.profile()
    }

    pub(super) fn build(&self, context: &BuildContext<'_>) -> Arc<dyn Identity> {
        (self.build)(context)
    }
}

/// Shows no secret, because the settings only name secrets.
impl fmt::Debug for ResolvedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
