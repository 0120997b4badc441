//! Certificates and keys of one connection's own, in place of the system's authorities.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// How the certificate of a server is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// It is from a trusted authority and has the name of the host.
    Full,
    /// It is from one of the own authorities. Its name does not matter.
    Authority,
    /// Not at all: the connection is encrypted, but the server may be another one.
    Off,
}

/// The authorities that a connection trusts in place of the system's, and the certificate of the client.
#[derive(Clone, Default)]
pub struct TlsMaterial {
    authorities: Option<Arc<RootCertStore>>,
    identity: Option<Arc<CertifiedKey>>,
}

impl TlsMaterial {
    pub(crate) fn is_empty(&self) -> bool {
        self.authorities.is_none() && self.identity.is_none()
    }

    pub(crate) fn has_authorities(&self) -> bool {
        self.authorities.is_some()
    }

    /// Trusts the certificates in `pem` only.
    pub(crate) fn trust(&mut self, pem: &str) -> Result<(), &'static str> {
        let certificates = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        let count = certificates.len();
        if roots.add_parsable_certificates(certificates) != (count, 0) {
            return Err("has a certificate that cannot be read");
        }
        self.authorities = Some(Arc::new(roots));
        Ok(())
    }

    /// Shows `chain`, whose first certificate belongs to `key`, to servers that ask for a certificate.
    pub(crate) fn identify(&mut self, chain: &str, key: &str) -> Result<(), IdentityError> {
        let chain = certificates(chain).map_err(IdentityError::Certificate)?;
        if key.contains("ENCRYPTED") {
            return Err(IdentityError::Key(
                "is encrypted; decrypt it with `openssl pkey`, and protect the file",
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| IdentityError::Key("must be a private key in PEM"))?;
        let identity = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let identity = identity.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                IdentityError::Key("does not belong to the certificate")
            }
            rustls::Error::InvalidCertificate(_) => {
                IdentityError::Certificate("has a certificate that cannot be read")
            }
            _ => IdentityError::Key("is a kind of key that TLS does not support"),
        })?;
        self.identity = Some(Arc::new(identity));
        Ok(())
    }

    /// Adds the material to `base`, which has the authorities that are trusted without it.
    pub(crate) fn configure(
        &self,
        base: &Arc<ClientConfig>,
        verification: Verification,
    ) -> Arc<ClientConfig> {
        if self.is_empty() && verification == Verification::Full {
            return base.clone();
        }
        let mut config = (**base).clone();
        // A session that another verification or certificate began must not be resumed.
        config.resumption = Resumption::default();
        if let Some(identity) = &self.identity {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.clone()));
        }
        let provider = config.crypto_provider().clone();
        let verifier: Option<Arc<dyn ServerCertVerifier>> = match (verification, &self.authorities)
        {
            (Verification::Full, None) => None,
            (Verification::Full, Some(roots)) => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
                // It fails only if there is no authority. Then the nameless verifier refuses every certificate.
                Some(match builder.build() {
                    Ok(verifier) => verifier,
                    Err(_) => Arc::new(Nameless::new(roots.clone(), provider)),
                })
            }
            (Verification::Authority, roots) => {
                let roots = roots
                    .clone()
                    .unwrap_or_else(|| RootCertStore::empty().into());
                Some(Arc::new(Nameless::new(roots, provider)))
            }
            (Verification::Off, _) => Some(Arc::new(Nameless {
                roots: None,
                provider,
            })),
        };
        if let Some(verifier) = verifier {
            config.dangerous().set_certificate_verifier(verifier);
        }
        Arc::new(config)
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

/// What is wrong with the certificate or the key of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentityError {
    Certificate(&'static str),
    Key(&'static str),
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    const EXPECTED: &str = "must contain certificates in PEM";

    let certificates =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| EXPECTED)?;
    if certificates.is_empty() {
        return Err(EXPECTED);
    }
    Ok(certificates)
}

/// Verifies a certificate without its name.
#[derive(Debug)]
struct Nameless {
    /// `None`: any certificate.
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl Nameless {
    fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        Self {
            roots: Some(roots),
            provider,
        }
    }
}

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
