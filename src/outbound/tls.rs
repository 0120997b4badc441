//! Whom the gate trusts at the other end of a TLS connection.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::settings::outbound::ExtraAuthorities;

/// Trusts the system's authorities, or Mozilla's if the system has none (as in a slim container), and those of the
/// config.
#[must_use]
pub fn tls_config(extra: &ExtraAuthorities) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(extra.0.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what the protocol versions need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// The system's authorities and those of the config in PEM, for a library that has its own way; `None` where there are
/// none at all.
#[must_use]
pub(crate) fn pem_authorities(extra: &ExtraAuthorities) -> Option<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let certificates = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    let mut pem = String::new();
    for certificate in certificates.iter().chain(&extra.0) {
        // What one TLS library cannot read, the other does not get.
        if roots.add(certificate.clone()).is_ok() {
            let text = STANDARD.encode(certificate);
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in text.as_bytes().chunks(64) {
                pem.push_str(&String::from_utf8_lossy(line));
                pem.push('\n');
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
    }
    (!pem.is_empty()).then(|| pem.into_bytes())
}
