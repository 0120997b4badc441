//! `[telemetry]`: the log and the traces.

use schemars::JsonSchema;
use serde::Deserialize;

use super::ServiceUrl;

/// `[telemetry]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// The format of log lines. Default: `"json"`.
    pub log: LogFormat,
    /// The base URL of an OpenTelemetry collector that receives traces by OTLP over HTTP, for example
    /// `"http://collector:4318"`. Default: none; the gate then exports no traces.
    pub otlp: Option<ServiceUrl>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Plain text.
    Text,
}
