//! The JSON Schema of the config file, from the types that read it.

use std::collections::BTreeMap;

use policies::settings::{Common, Kind};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{
    IdentitySettings, ImgwireSettings, ManagementSettings, ServerSettings, SessionSettings,
    StoreSettings, TelemetrySettings, outbound::OutboundSettings, routes::RouteSettings,
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
    policies: Option<BTreeMap<String, PolicySettings>>,
    /// Which path has which policies.
    routes: Vec<RouteSettings>,
}

/// `[policies.<name>]`: a kind, and what every kind takes.
struct PolicySettings;

impl JsonSchema for PolicySettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PolicySettings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let common = Common::json_schema(generator);
        let mut schema = Kind::json_schema(generator);
        let shared = common.get("properties").and_then(Value::as_object);
        let kinds = schema.get_mut("oneOf").and_then(Value::as_array_mut);
        for kind in kinds.into_iter().flatten() {
            if let Some(Value::Object(properties)) = kind.get_mut("properties") {
                properties.extend(
                    shared
                        .into_iter()
                        .flatten()
                        .map(|(k, v)| (k.clone(), v.clone())),
                );
            }
        }
        schema
    }
}

/// The JSON Schema (2020-12) of the config file.
#[must_use]
pub fn schema() -> Schema {
    schemars::schema_for!(ConfigFile)
}
