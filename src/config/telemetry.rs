//! `[telemetry]`: what the gate tells its operator.

use schemars::JsonSchema;
use serde::Deserialize;

use super::ServiceUrl;

/// `[telemetry]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// How log lines are written.
    pub log: LogFormat,
    /// Where traces are sent to: the base URL of an OpenTelemetry collector that takes OTLP over HTTP, for example
    /// `http://collector:4318`; left out: nowhere.
    pub otlp: Option<ServiceUrl>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}
