//! Which authorities the gate trusts for TLS connections.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::config::outbound::ExtraAuthorities;

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
