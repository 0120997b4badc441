//! `imgwire-gate health`

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::{config::server::Bind, server::settings};

use super::{Config, Failure, process_environment, read_config};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Requests `/readyz` of the running gate. Reads only `[management]` of the config file, so it needs no secret.
pub(super) fn health(config: &Config) -> Result<(), Failure> {
    let source = config.source()?;
    let text = read_config(&source)?;
    let management = settings::load_management(&source.to_string(), &text, &process_environment)
        .map_err(|faults| Failure::Config(faults.to_string()))?;
    let status = readiness_status(&management.bind).map_err(|error| {
        let bind = &management.bind;
        Failure::other(format_args!("cannot reach the gate on {bind}: {error}"))
    })?;
    if status == "200" {
        Ok(())
    } else {
        Err(Failure::other("the gate is not ready"))
    }
}

fn readiness_status(bind: &Bind) -> std::io::Result<String> {
    match bind {
        Bind::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            status(stream)
        }
        Bind::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            status(stream)
        }
    }
}

/// A gate that listens on all addresses is reachable on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn status(mut stream: impl Read + Write) -> std::io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(1024)).read_line(&mut line)?;
    Ok(line.split(' ').nth(1).unwrap_or_default().to_owned())
}
