//! The kinds of policy and identity that a config may name.

use std::{fmt, sync::Arc};

use policies::{
    Policy,
    settings::{Context, CustomKind, OnFailure},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::document::{Reader, Value};
use crate::identities::IdentityKinds;

/// The kinds that a config may name.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// The kinds of policy besides the gate's own.
    pub policies: PolicyKinds,
    /// The kinds of identity, the gate's own included.
    pub identities: IdentityKinds,
}

/// The kinds of policy that a config may name besides the gate's own.
#[derive(Clone, Debug, Default)]
pub struct PolicyKinds(Vec<PolicyKind>);

/// Reads the settings of a registered kind.
type Read = dyn Fn(&mut Reader, &str, Value<'_>, OnFailure) -> Option<CustomKind> + Send + Sync;

#[derive(Clone)]
struct PolicyKind {
    name: &'static str,
    read: Arc<Read>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl fmt::Debug for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyKind").field(&self.name).finish()
    }
}

impl PolicyKinds {
    /// The kinds that the gate has itself, which nobody else's may be called.
    pub(super) const BUILT_IN: [&str; 7] = [
        "signed_in",
        "workspace_member",
        "rate_limit",
        "quota",
        "upload_intent",
        "expression",
        "remote",
    ];

    /// Registers a kind, whose settings are an `S` and whose policies `build` makes of them.
    ///
    /// # Panics
    ///
    /// When there is a kind of this name already.
    pub fn register<S, P>(
        &mut self,
        name: &'static str,
        build: impl Fn(S, Context) -> P + Send + Sync + 'static,
    ) where
        S: DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static,
        P: Policy + 'static,
    {
        let is_taken = Self::BUILT_IN.contains(&name) || self.find(name).is_some();
        assert!(!is_taken, "there is a kind `{name}` already");
        let build = Arc::new(build);
        self.0.push(PolicyKind {
            name,
            read: Arc::new(move |reader, path, value, on_failure| {
                let settings: S = reader.table(path, value)?;
                let build = build.clone();
                Some(CustomKind {
                    name,
                    on_failure,
                    build: Arc::new(move |context| Arc::new(build(settings.clone(), context))),
                })
            }),
            schema: S::json_schema,
        });
    }

    fn find(&self, name: &str) -> Option<&PolicyKind> {
        self.0.iter().find(|kind| kind.name == name)
    }

    /// Whether there is a registered kind of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Reads a policy of the registered kind `name`.
    pub(super) fn read(
        &self,
        name: &str,
        reader: &mut Reader,
        path: &str,
        value: Value<'_>,
        on_failure: OnFailure,
    ) -> Option<CustomKind> {
        (self.find(name)?.read)(reader, path, value, on_failure)
    }

    /// All names, the gate's own first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let own = Self::BUILT_IN.into_iter();
        own.chain(self.0.iter().map(|kind| kind.name))
    }

    /// The schema of each registered kind's settings.
    pub(super) fn schemas(&self, generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        let kinds = self.0.iter();
        kinds
            .map(|kind| (kind.name, (kind.schema)(generator)))
            .collect()
    }
}
