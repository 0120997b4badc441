//! The JSON Schema of the config file, from the types that read it.

use std::collections::BTreeMap;

use policies::settings::{Common, Kind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{
    ImgwireSettings, Kinds, ManagementSettings, ServerSettings, SessionSettings, StoreSettings,
    TelemetrySettings, outbound::OutboundSettings, routes::RouteSettings,
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

/// The settings of one identity, by its kind. The kinds are added when the schema is made.
struct IdentitySettings;

impl JsonSchema for IdentitySettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IdentitySettings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "The settings of one identity, by its kind." })
    }
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
    schema_with(&Kinds::default())
}

/// The same, where policies and identities may be of `kinds`.
#[must_use]
pub fn schema_with(kinds: &Kinds) -> Schema {
    let mut generator = SchemaGenerator::default();
    let identities = kinds.identities.schema(&mut generator);
    let registered: Vec<Value> = kinds
        .policies
        .schemas(&mut generator)
        .into_iter()
        .map(|(name, schema)| registered(name, schema))
        .collect();
    let mut root = generator.into_root_schema_for::<ConfigFile>();
    if let Some(of_identities) = root.pointer_mut("/$defs/IdentitySettings") {
        of_identities["oneOf"] = identities.into();
    }
    let of_policies = root.pointer_mut("/$defs/PolicySettings/oneOf");
    if let Some(Value::Array(of_policies)) = of_policies {
        of_policies.extend(registered);
    }
    root
}

/// The schema of a registered kind of policy: its settings, and what every kind takes.
fn registered(name: &str, schema: Schema) -> Value {
    let shared = Common::json_schema(&mut SchemaGenerator::default());
    let mut schema = schema.to_value();
    let shared = shared.get("properties").and_then(Value::as_object);
    if let Some(table) = schema.as_object_mut() {
        let properties = table.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties.extend(
                shared
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            properties.insert(
                "kind".to_owned(),
                json!({ "type": "string", "const": name }),
            );
            properties.insert(
                "on_failure".to_owned(),
                json!({ "enum": ["deny", "allow"] }),
            );
        }
        let required = table.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            required.push(json!("kind"));
        }
    }
    schema
}
