//! Why a TLS connection failed, in words that say what to do.

use std::{fmt::Write as _, io};

use rustls::{AlertDescription, CertificateError, Error};

use crate::telemetry::excerpt;

/// The most names of a certificate that a message lists.
const MAX_NAMES: usize = 5;

/// Explains an error of a connection to `host`, if it is one of TLS. With TLS 1.3, a server refuses a client without a
/// certificate only after the handshake.
pub(super) fn explain(error: io::Error, host: &str) -> io::Error {
    let tls = error.get_ref().and_then(|source| source.downcast_ref());
    match tls.map(|tls| describe(tls, host)) {
        Some(text) => io::Error::new(error.kind(), text),
        None => error,
    }
}

pub(super) fn describe(error: &Error, host: &str) -> String {
    match error {
        Error::InvalidCertificate(error) => {
            format!("the certificate of `{host}` {}", certificate(error))
        }
        Error::InvalidMessage(_) => format!(
            "`{host}` does not speak TLS on this port; check the port, or write http instead of https"
        ),
        Error::PeerIncompatible(_) => {
            format!("`{host}` supports neither TLS 1.2 nor TLS 1.3 with a common cipher suite")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            format!("`{host}` has no TLS version in common with the gate")
        }
        // With TLS 1.2, this alert has both reasons.
        Error::AlertReceived(AlertDescription::HandshakeFailure) => format!(
            "`{host}` has no cipher suite in common with the gate, or requires a client certificate, which the gate does not have"
        ),
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        ) => format!("`{host}` requires a client certificate, which the gate does not have"),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            format!("`{host}` does not serve this host name; check the URL")
        }
        Error::AlertReceived(alert) => format!(
            "`{host}` refuses the connection with the TLS alert {} (RFC 8446, 6)",
            u8::from(*alert)
        ),
        Error::NoCertificatesPresented => format!("`{host}` has no certificate"),
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_) => format!("`{host}` violates the TLS protocol"),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    let text = match error {
        CertificateError::UnknownIssuer => {
            "is from an authority that the gate does not trust; add the certificate of that authority to `[outbound] ca`, or for a store to its `tls.ca`"
        }
        CertificateError::Expired => "has expired; renew it",
        CertificateError::ExpiredContext { time, not_after } => {
            let over = time.as_secs().saturating_sub(not_after.as_secs());
            return format!("expired {}; renew it", age(over));
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; check the clock of this machine"
        }
        CertificateError::NotValidForName => {
            "is for another host name; write a name that it has in the URL"
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            return format!(
                "is for {}; write a name that it has in the URL",
                names(presented)
            );
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers; issue one with the extended key usage `serverAuth`"
        }
        CertificateError::Revoked => "is revoked; renew it",
        CertificateError::BadSignature => {
            "has a wrong signature; `[outbound] ca` (or `tls.ca` of a store) may have an old certificate of the same authority"
        }
        CertificateError::BadEncoding => "cannot be read; issue it again",
        CertificateError::UnhandledCriticalExtension => UNKNOWN_EXTENSION,
        // The type of this error is private to rustls.
        CertificateError::Other(other) => by_name(&format!("{:?}", other.0)),
        _ => NOT_VALID,
    };
    text.to_owned()
}

const UNKNOWN_EXTENSION: &str =
    "has a critical extension that the gate does not know; issue it without this extension";

const NOT_VALID: &str = "is not valid; examine it with `openssl x509 -text`";

/// Describes an error of the library that verifies certificates.
fn by_name(error: &str) -> &'static str {
    match error {
        "CaUsedAsEndEntity" => {
            "is one of a certificate authority; let that authority issue a server certificate, and add the authority's to `[outbound] ca`, or for a store to its `tls.ca`"
        }
        "EndEntityUsedAsCa" => {
            "is issued by a certificate that is not one of an authority; issue it with the authority's"
        }
        "UnsupportedCertVersion" => "has an old version of X.509; issue one of version 3",
        "UnsupportedCriticalExtension" => UNKNOWN_EXTENSION,
        "NameConstraintViolation" => "has a name that its authority must not certify",
        "PathLenConstraintViolated" | "MaximumPathDepthExceeded" => {
            "has a longer chain of authorities than is allowed"
        }
        _ => NOT_VALID,
    }
}

/// Lists names of a certificate, which its owner chose.
fn names(presented: &[String]) -> String {
    let shown = presented.iter().take(MAX_NAMES);
    let shown: Vec<_> = shown
        // rustls writes the type around the name: DnsName("a.example").
        .map(|name| name.split('"').nth(1).unwrap_or(name))
        .map(|name| format!("`{}`", excerpt(name)))
        .collect();
    let mut text = match shown.is_empty() {
        true => "no host name".to_owned(),
        false => shown.join(", "),
    };
    let more = presented.len().saturating_sub(MAX_NAMES);
    if more > 0 {
        // Writing to a string does not fail.
        let _ = write!(text, " and {more} more");
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{} minutes ago", seconds / 60),
        hours @ 1..48 => format!("{hours} hours ago"),
        hours => format!("{} days ago", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::Arc;

    use rustls::{OtherError, PeerIncompatible, PeerMisbehaved, pki_types::UnixTime};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the text is not used")]
    enum PrivateError {
        CaUsedAsEndEntity,
        NameConstraintViolation,
        SomethingElse,
    }

    #[test]
    fn no_message_has_the_name_of_a_variant() {
        let other = |error| CertificateError::Other(OtherError(Arc::new(error)));
        for (error, expected) in [
            (
                CertificateError::ApplicationVerificationFailure,
                "is not valid",
            ),
            (
                CertificateError::UnhandledCriticalExtension,
                "has a critical extension",
            ),
            (
                other(PrivateError::CaUsedAsEndEntity),
                "is one of a certificate authority",
            ),
            (
                other(PrivateError::NameConstraintViolation),
                "has a name that its authority must not certify",
            ),
            (other(PrivateError::SomethingElse), "is not valid"),
        ] {
            let text = describe(&Error::InvalidCertificate(error), "a.example");
            let start = format!("the certificate of `a.example` {expected}");
            assert!(text.starts_with(&start), "{text}");
            assert!(
                !text.contains("Else") && !text.contains("Failure"),
                "{text}"
            );
        }
        for (error, expected) in [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "refuses the connection with the TLS alert 48",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "requires a client certificate",
            ),
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "or requires a client certificate",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "with a common cipher suite",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                "violates the TLS protocol",
            ),
        ] {
            let text = describe(&error, "a.example");
            assert!(text.contains(expected), "{text}");
            let has_debug = ["UnknownCA", "InCommon", "TooMuch"];
            assert!(!has_debug.iter().any(|name| text.contains(name)), "{text}");
        }
    }

    #[test]
    fn an_expired_certificate_names_its_age() {
        let at = |hours: u64| UnixTime::since_unix_epoch(Duration::from_secs(hours * 3600));
        for (hours, expected) in [(0, "0 minutes ago"), (3, "3 hours ago"), (72, "3 days ago")] {
            let (time, not_after) = (at(1000 + hours), at(1000));
            let error = CertificateError::ExpiredContext { time, not_after };
            assert_eq!(certificate(&error), format!("expired {expected}; renew it"));
        }
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let presented: Vec<_> = (0..9)
            .map(|n| format!("DnsName(\"n{n}.example\")"))
            .collect();
        let text = names(&presented);
        assert!(text.starts_with("`n0.example`, `n1.example`"), "{text}");
        assert!(text.ends_with("`n4.example` and 4 more"), "{text}");
        assert_eq!(names(&[]), "no host name");
    }
}
