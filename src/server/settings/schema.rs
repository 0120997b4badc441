//! The JSON Schema of the config file, from the types that read it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Kinds, routes::RouteSettings};
use crate::{
    config::{
        ImgwireSettings, ManagementSettings, ServerSettings, SessionSettings, TelemetrySettings,
        outbound::OutboundSettings,
    },
    stores::StoreSettings,
};

/// The whole file.
#[derive(JsonSchema)]
#[schemars(title = "imgwire-gate", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ConfigFile {
    /// Where the gate listens, and whom it believes.
    server: Option<ServerSettings>,
    /// Where health checks and metrics are.
    management: Option<ManagementSettings>,
    /// What the gate tells its operator.
    telemetry: Option<TelemetrySettings>,
    /// The service on the other side.
    imgwire: ImgwireSettings,
    /// How other services are reached.
    outbound: Option<OutboundSettings>,
    /// The gate's own session cookie.
    session: Option<SessionSettings>,
    /// Where counters are kept.
    stores: Option<BTreeMap<String, StoreSettings>>,
    /// Who a request may come from.
    identities: Option<BTreeMap<String, IdentitySettings>>,
    /// Who may have a token.
    policies: Option<BTreeMap<String, AnyPolicy>>,
    /// Which path has which policies.
    routes: Vec<RouteSettings>,
}

/// The settings of one identity, by its kind. The kinds are added when the schema is made.
#[derive(JsonSchema)]
struct IdentitySettings {}

/// The settings of one policy, by its kind. The kinds are added when the schema is made.
#[derive(JsonSchema)]
#[schemars(rename = "PolicySettings")]
struct AnyPolicy {}

/// The JSON Schema (2020-12) of the config file.
#[must_use]
pub fn schema() -> Schema {
    schema_with(&Kinds::default())
}

/// Like [`schema`], with additional kinds.
#[must_use]
pub fn schema_with(kinds: &Kinds) -> Schema {
    let mut generator = SchemaGenerator::default();
    let policies = kinds.policies.schema(&mut generator);
    let identities = kinds.identities.schema(&mut generator);
    let mut root = generator.into_root_schema_for::<ConfigFile>();
    if let Some(definitions) = root.pointer_mut("/$defs").and_then(Value::as_object_mut) {
        let identity = json!({ "description": "The settings of one identity, by its kind.", "oneOf": identities });
        definitions.insert("IdentitySettings".to_owned(), identity);
        definitions.insert("PolicySettings".to_owned(), json!({ "oneOf": policies }));
    }
    root
}
