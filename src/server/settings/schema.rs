//! The JSON Schema of the config file, from the types that read it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Kinds, routes::RouteSettings};
use crate::{
    config::{
        EventsSettings, ImgwireSettings, ManagementSettings, ServerSettings, SessionSettings,
        TelemetrySettings, UploadsSettings, outbound::OutboundSettings,
    },
    stores::StoreSettings,
};

/// The config file of imgwire-gate.
#[derive(JsonSchema)]
#[schemars(title = "imgwire-gate", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ConfigFile {
    /// The public listener and its limits.
    server: Option<ServerSettings>,
    /// The management listener: health checks, metrics and the operators' API.
    management: Option<ManagementSettings>,
    /// The log and the traces.
    telemetry: Option<TelemetrySettings>,
    /// The connection to Imgwire, which creates the tokens.
    imgwire: ImgwireSettings,
    /// Connections to other services.
    outbound: Option<OutboundSettings>,
    /// The gate's own session cookie. Without this section, the gate has no sessions.
    session: Option<SessionSettings>,
    /// Where counters and sessions are stored, and which databases policies query. Each store has a name.
    stores: Option<BTreeMap<String, StoreSettings>>,
    /// How the gate verifies who sent a request. Each identity has a name.
    identities: Option<BTreeMap<String, IdentitySettings>>,
    /// Rules that allow or deny a token. Each policy has a name.
    policies: Option<BTreeMap<String, AnyPolicy>>,
    /// The paths where clients request tokens or upload files, with the policies of each.
    routes: Vec<RouteSettings>,
    /// What happened to uploads, sent to your app. Without this section, the gate sends nothing.
    events: Option<EventsSettings>,
    /// How uploads are followed, and how long their records are kept.
    uploads: Option<UploadsSettings>,
}

/// The settings of one identity. [`schema`] adds the kinds.
#[derive(JsonSchema)]
struct IdentitySettings {}

/// The settings of one policy. [`schema`] adds the kinds.
#[derive(JsonSchema)]
#[schemars(rename = "PolicySettings")]
struct AnyPolicy {}

/// The JSON Schema (2020-12) of the config file.
#[must_use]
pub fn schema(kinds: &Kinds) -> Schema {
    let mut generator = SchemaGenerator::default();
    let policies = kinds.policies.schema(&mut generator);
    let identities = kinds.identities.schema(&mut generator);
    let mut root = generator.into_root_schema_for::<ConfigFile>();
    if let Some(definitions) = root.pointer_mut("/$defs").and_then(Value::as_object_mut) {
        let identity = json!({ "description": "An identity. `kind` decides which other keys it has.", "oneOf": identities });
        definitions.insert("IdentitySettings".to_owned(), identity);
        definitions.insert("PolicySettings".to_owned(), json!({ "description": "A policy. `kind` decides which other keys it has.", "oneOf": policies }));
    }
    root
}
