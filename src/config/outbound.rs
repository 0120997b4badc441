//! `[outbound]`: how the gate connects to other services.

use std::{fmt, path::PathBuf};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{document::Reader, files::why_unreadable};

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
        const KEY: &str = "outbound.ca";

        let shown = path.display();
        match reader.files.read(path) {
            Ok(pem) if pem.is_empty() => {
                reader.absent_file(KEY, format!("the file `{shown}` is empty"));
                None
            }
            Ok(pem) => ExtraAuthorities::parse(&pem)
                .map_err(|fault| reader.fault(KEY, format!("the file `{shown}` {fault}")))
                .ok(),
            Err(error) => {
                let reason = why_unreadable(&error);
                reader.absent_file(KEY, format!("the file `{shown}` cannot be read: {reason}"));
                None
            }
        }
    }
}

#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExtraAuthorities(pub Vec<CertificateDer<'static>>);

impl fmt::Debug for ExtraAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraAuthorities({})", self.0.len())
    }
}

impl ExtraAuthorities {
    fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| "is not PEM")?;
        let mut roots = rustls::RootCertStore::empty();
        let usable = roots.add_parsable_certificates(certificates.iter().cloned());
        if certificates.is_empty() || usable != (certificates.len(), 0) {
            Err("must contain CA certificates in PEM")
        } else {
            Ok(Self(certificates))
        }
    }
}
