//! The certificates of a store.

use std::path::PathBuf;

use policies::SecretSource;
use schemars::JsonSchema;
use serde::Deserialize;

/// `tls` of a store.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("examples" = [{ "ca": "/etc/gate/ca.pem" }]))]
pub struct TlsSettings {
    /// The path of a PEM file with the only CA certificates to trust for this store. Default: the system's authorities
    /// and those of `[outbound] ca`.
    pub ca: Option<PathBuf>,
    /// The path of a PEM file with the certificate that the gate shows to the server, and the certificates of its chain.
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`, in PEM.
    pub key: Option<SecretSource>,
}
