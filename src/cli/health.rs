//! `imgwire-gate health`

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    runtime,
    time::timeout,
};

use super::{
    Config, Failure, print, process_environment, read_config,
    running_gate::{Source, find},
};
use crate::{
    config::{ConfigSource, server::Bind, source::DEFAULT_PATHS},
    server::settings,
};

/// For everything. Shorter than the time limits of usual health checks.
const TIMEOUT: Duration = Duration::from_secs(2);

/// For the gate to say where it listens.
const FIND_TIMEOUT: Duration = Duration::from_millis(500);

const MAX_RESPONSE: usize = 64 << 10;
const MAX_HEADERS: usize = 64;

/// The longest line about the parts that are down.
const MAX_PARTS: usize = 1000;

/// What of `/readyz` and `/livez` is used.
#[derive(Deserialize)]
struct Body {
    status: Option<String>,
    live: Option<bool>,
    #[serde(default)]
    failing: Vec<String>,
    #[serde(default)]
    degraded: Vec<String>,
}

/// Asks `/readyz` of the running gate, or `/livez`. The gate itself says where it listens, so what has happened to its
/// config file since does not matter.
pub(super) fn health(config: &Config, live: bool) -> Result<(), Failure> {
    let path = if live { "/livez" } else { "/readyz" };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::system("cannot ask the gate", &error))?;
    let asked = runtime.block_on(async {
        let located = async {
            let bind = locate(config).await?;
            let response = ask(&bind, path).await;
            let response = response.map_err(|error| {
                Failure::system(format_args!("cannot reach the gate on {bind}"), &error)
            })?;
            Ok((bind, response))
        };
        let late = || Failure::other(format_args!("the gate did not respond within {TIMEOUT:?}"));
        let asked = timeout(TIMEOUT, located).await;
        asked.unwrap_or_else(|_| Err(late()))
    });
    let (bind, (status, body)) = asked?;
    let body: Option<Body> = serde_json::from_slice(&body).ok();
    match (status, body) {
        (
            200,
            Some(Body {
                live: Some(true), ..
            }),
        ) if live => Ok(()),
        (200, Some(body)) if !live && body.status.as_deref() == Some("ready") => {
            match body.degraded.is_empty() {
                true => Ok(()),
                false => print(&format!("ready, degraded: {}", list(&body.degraded))),
            }
        }
        (503, Some(body)) if !live && !body.failing.is_empty() => {
            let failing = list(&body.failing);
            Err(Failure::other(format_args!(
                "not ready, failing: {failing}"
            )))
        }
        (status, _) => Err(Failure::other(format_args!(
            "what listens on {bind} is not the management listener of a gate: it responded with status {status}"
        ))),
    }
}

/// Finds the management listener of the gate that runs with this config. If no gate says where it listens, this is the
/// address in the config.
async fn locate(config: &Config) -> Result<Bind, Failure> {
    let sources = sources(config);
    for source in &sources {
        if let Ok(Some(bind)) = timeout(FIND_TIMEOUT, find(source)).await {
            return Ok(bind);
        }
    }
    let no_gate = || Failure::other("no gate runs with this config");
    let source = config.source().map_err(|_| no_gate())?;
    if source == ConfigSource::Stdin {
        return Err(no_gate());
    }
    let text = read_config(&source).map_err(|_| no_gate())?;
    let management = settings::load_management(&source.to_string(), &text, &process_environment);
    management
        .map(|management| management.bind)
        .map_err(|_| no_gate())
}

/// The sources under which the gate may be found, the likeliest first.
fn sources(config: &Config) -> Vec<Source> {
    // In a container, the health check knows neither standard input nor the arguments of the gate.
    let elsewhere = [Source::Config(ConfigSource::Stdin), Source::Sandbox];
    match (config.source(), &config.argument) {
        (Ok(source), Some(_)) => vec![Source::Config(source)],
        (Ok(source), None) if !is_default(&source) => [Source::Config(source)]
            .into_iter()
            .chain(elsewhere)
            .collect(),
        // The file of the running gate may be gone.
        _ => {
            let defaults =
                DEFAULT_PATHS.map(|path| Source::Config(ConfigSource::File(path.into())));
            defaults.into_iter().chain(elsewhere).collect()
        }
    }
}

fn is_default(source: &ConfigSource) -> bool {
    let path = source.file().map(Path::to_owned);
    path.is_some_and(|path| DEFAULT_PATHS.map(PathBuf::from).contains(&path))
}

/// The parts in one line, of which another program may have sent any bytes.
fn list(parts: &[String]) -> String {
    let text = parts.join(", ");
    let plain = text.chars().filter(|character| !character.is_control());
    plain.take(MAX_PARTS).collect()
}

async fn ask(bind: &Bind, path: &str) -> io::Result<(u16, Vec<u8>)> {
    match bind {
        Bind::Tcp(address) => request(TcpStream::connect(reachable(*address)).await?, path).await,
        Bind::Unix(socket) => request(UnixStream::connect(socket).await?, path).await,
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

/// Returns the status and the body.
async fn request(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
) -> io::Result<(u16, Vec<u8>)> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        let is_over = stream.read_buf(&mut bytes).await? == 0;
        match parse(&bytes, is_over)? {
            Some(response) => return Ok(response),
            None if is_over => return Err(io::ErrorKind::UnexpectedEof.into()),
            None if bytes.len() > MAX_RESPONSE => return Err(invalid("the response is too large")),
            None => {}
        }
    }
}

/// Returns `None` while the response is incomplete.
fn parse(bytes: &[u8], is_over: bool) -> io::Result<Option<(u16, Vec<u8>)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let Ok(httparse::Status::Complete(head)) = parsed else {
        let _ = parsed.map_err(|_| invalid("the response is not HTTP"))?;
        return Ok(None);
    };
    let body = &bytes[head..];
    let mut lengths = response.headers.iter();
    let length = lengths.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|length| str::from_utf8(length.value).ok()?.parse().ok());
    let body = match length {
        Some(length) => body.get(..length),
        None => is_over.then_some(body),
    };
    let status = response.code.unwrap_or_default();
    Ok(body.map(|body| (status, body.to_vec())))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_with_its_last_byte() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end], false).unwrap(), None, "{end}");
        }
        assert_eq!(parse(text, false).unwrap(), Some((503, b"{}".to_vec())));
        let unknown = b"HTTP/1.1 200 OK\r\n\r\n{}";
        assert_eq!(parse(unknown, false).unwrap(), None);
        assert_eq!(parse(unknown, true).unwrap(), Some((200, b"{}".to_vec())));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n", false).is_err());
    }
}
