//! Why something that depends on another machine or a file failed, in words: without the names of a library's types, and without
//! the numbers of an operating system.

use std::{
    error::Error,
    io::{self, ErrorKind},
    sync::Arc,
};

use super::tls_error;
use crate::config::files::without_number;

/// Describes the innermost cause of `error` that says more than the error itself. `peer` names the other machine in
/// faults of TLS.
pub(crate) fn reason(error: &(dyn Error + 'static), peer: &str) -> String {
    let mut innermost = error;
    loop {
        // The redis crate hides its source in one.
        if let Some(shared) = innermost.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            innermost = &**shared;
        }
        if let Some(tls) = innermost.downcast_ref::<rustls::Error>() {
            return tls_error::describe(tls, peer);
        }
        if let Some(io) = innermost.downcast_ref::<io::Error>() {
            match io.get_ref() {
                // The error of another layer, such as TLS, or a text of our own.
                Some(inner) => innermost = inner,
                None => return io_reason(io),
            }
        } else if let Some(source) = innermost.source() {
            innermost = source;
        } else {
            return without_number(&innermost.to_string()).to_owned();
        }
    }
}

/// Describes an error of the operating system.
fn io_reason(error: &io::Error) -> String {
    let words = match error.kind() {
        ErrorKind::ConnectionRefused => "the connection was refused",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => "the connection was reset",
        ErrorKind::BrokenPipe | ErrorKind::NotConnected => "the connection is closed",
        ErrorKind::UnexpectedEof => "the connection was closed too early",
        ErrorKind::TimedOut => "no answer in time",
        ErrorKind::HostUnreachable => "the host is unreachable",
        ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => "the network is unreachable",
        _ => {
            return without_number(&error.to_string()).to_owned();
        }
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error as TlsError};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer error")]
    struct Outer(#[source] io::Error);

    #[test]
    fn errors_of_the_system_are_words_without_a_number() {
        for (number, expected) in [
            (111, "the connection was refused"),
            (104, "the connection was reset"),
            (32, "the connection is closed"),
            (110, "no answer in time"),
            (113, "the host is unreachable"),
            (24, "Too many open files"),
            (2, "No such file or directory"),
        ] {
            let error = Outer(io::Error::from_raw_os_error(number));
            assert_eq!(reason(&error, "db"), expected);
        }
        let plain = io::Error::from(ErrorKind::UnexpectedEof);
        assert_eq!(reason(&plain, "db"), "the connection was closed too early");
        let own = io::Error::other("the text of a layer");
        assert_eq!(reason(&Outer(own), "db"), "the text of a layer");
    }

    #[test]
    fn an_error_of_tls_within_another_error_says_what_to_do() {
        let tls = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = Outer(io::Error::new(ErrorKind::InvalidData, tls));
        let text = reason(&error, "db.example");
        assert!(
            text.starts_with("the certificate of `db.example` is from an authority"),
            "{text}"
        );
        assert!(!text.contains("UnknownIssuer"), "{text}");
    }
}
