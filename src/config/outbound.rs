//! `[outbound]`: how the gate connects to other services.

use std::{fmt, path::PathBuf};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use schemars::JsonSchema;
use serde::Deserialize;

use super::document::Reader;

/// `[outbound]`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundSettings {
    /// The path of a PEM file with CA certificates to trust in addition to the system's, for services with certificates
    /// of a private CA. Default: none.
    pub ca: Option<PathBuf>,
}

impl OutboundSettings {
    pub(crate) fn authorities(&self, reader: &mut Reader) -> Option<ExtraAuthorities> {
        let Some(path) = &self.ca else {
            return Some(ExtraAuthorities::default());
        };
        let read = ExtraAuthorities::read(path);
        read.map_err(|message| reader.fault("outbound.ca", message))
            .ok()
    }
}

#[derive(Clone, Default)]
pub struct ExtraAuthorities(pub Vec<CertificateDer<'static>>);

impl fmt::Debug for ExtraAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraAuthorities({})", self.0.len())
    }
}

impl ExtraAuthorities {
    pub(super) fn read(path: &std::path::Path) -> Result<Self, String> {
        let shown = path.display();
        let pem = std::fs::read(path)
            .map_err(|error| format!("the file `{shown}` cannot be read: {}", error.kind()))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("the file `{shown}` is not PEM"))?;
        let mut roots = rustls::RootCertStore::empty();
        let usable = roots.add_parsable_certificates(certificates.iter().cloned());
        if certificates.is_empty() || usable != (certificates.len(), 0) {
            Err(format!(
                "the file `{shown}` must contain CA certificates in PEM"
            ))
        } else {
            Ok(Self(certificates))
        }
    }
}
