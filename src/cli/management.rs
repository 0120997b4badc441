//! The client of a running gate's management listener.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    http::{
        Method, StatusCode, Uri,
        header::{ACCEPT, AUTHORIZATION, HeaderValue},
    },
    rt,
};
use awc::error::{ConnectError, SendRequestError};
use bytes::Bytes;
use futures_util::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use policies::SystemClock;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Config, Failure, process_environment, read_config,
    running_gate::{Source, find},
};
use crate::{
    config::{ConfigSource, server::Bind, source::DEFAULT_PATHS},
    outbound::{HttpError, Peer, PoolSettings, client, reason, socket_client},
    server::settings,
};

/// For the gate to say where it listens.
const FIND_TIMEOUT: Duration = Duration::from_millis(500);

/// For each part of a response. The gate may ask Imgwire or a store first.
const TIMEOUT: Duration = Duration::from_secs(30);

const MAX_RESPONSE: usize = 4 << 20;

const POOL: PoolSettings = PoolSettings {
    limit: 1,
    keep_alive: Duration::from_secs(15),
    connect_timeout: TIMEOUT,
};

/// Runs a command that asks the gate that runs with `config`, with the management token of the config.
pub(super) fn run<T>(
    config: &Config,
    command: impl AsyncFnOnce(&ManagementClient) -> Result<T, Failure>,
) -> Result<T, Failure> {
    rt::System::new().block_on(async {
        let bind = locate(config).await?;
        command(&ManagementClient::new(bind, management_token(config)?)).await
    })
}

/// Finds the management listener of the gate that runs with this config. If no gate says where it listens, this is the
/// address in the config.
pub(super) async fn locate(config: &Config) -> Result<Bind, Failure> {
    let sources = sources(config);
    for source in &sources {
        if let Ok(Some(bind)) = timeout(FIND_TIMEOUT, find(source)).await {
            return Ok(bind);
        }
    }
    let no_gate = || Failure::other("no gate runs with this config");
    let (source, text) = readable(config).ok_or_else(no_gate)?;
    let management = settings::load_management(&source.to_string(), &text, &process_environment);
    management
        .map(|management| management.bind)
        .map_err(|_| no_gate())
}

/// `None` if the config cannot be read, as from the standard input of the gate. The gate may require no token.
fn management_token(config: &Config) -> Result<Option<SecretString>, Failure> {
    let Some((source, text)) = readable(config) else {
        return Ok(None);
    };
    settings::load_management_token(&source.to_string(), &text, &process_environment)
        .map_err(|faults| Failure::Config(faults.to_string()))
}

fn readable(config: &Config) -> Option<(ConfigSource, String)> {
    let source = config.source().ok()?;
    if source == ConfigSource::Stdin {
        return None;
    }
    let text = read_config(&source).ok()?;
    Some((source, text))
}

/// The sources under which the gate may be found, the likeliest first.
fn sources(config: &Config) -> Vec<Source> {
    // In a container, the command knows neither standard input nor the arguments of the gate.
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

/// A gate that listens on all addresses is reachable on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A client of the gate whose management listener is on `bind`.
pub(super) struct ManagementClient {
    bind: Bind,
    /// Scheme and authority.
    url: String,
    client: awc::Client,
    token: Option<SecretString>,
}

/// A whole response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// What the gate says about an error.
#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: Option<String>,
    #[serde(rename = "requestId")]
    request_id: String,
}

impl ManagementClient {
    pub(super) fn new(bind: Bind, token: Option<SecretString>) -> Self {
        let url = match &bind {
            Bind::Tcp(address) => format!("http://{}", reachable(*address)),
            Bind::Unix(_) => "http://localhost".to_owned(),
        };
        // Nothing reads the metrics of a command.
        let peer = Peer::new(
            &Uri::try_from(&url).unwrap_or_default(),
            &(Arc::new(SystemClock::new()) as _),
            &Arc::default(),
        );
        let client = match &bind {
            Bind::Tcp(_) => client(&peer, None, &POOL),
            Bind::Unix(socket) => socket_client(&peer, socket, &POOL),
        };
        Self {
            bind,
            url,
            client,
            token,
        }
    }

    /// Sends a request, and returns any response.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Answer, Failure> {
        let mut response = self.send(method, path).await?;
        let body = timeout(TIMEOUT, response.body().limit(MAX_RESPONSE)).await;
        let body = body.map_err(|_| self.unreachable(&HttpError::Timeout))?;
        Ok(Answer {
            status: response.status(),
            body: body.map_err(|error| self.unreachable(&error.into()))?,
        })
    }

    /// Sends a request that must succeed.
    pub(super) async fn request(&self, method: Method, path: &str) -> Result<Bytes, Failure> {
        let answer = self.ask(method, path).await?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(self.refused(answer.status, &answer.body)),
        }
    }

    /// Sends a request that must succeed with a JSON document.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, Failure> {
        let body = self.request(method, path).await?;
        serde_json::from_slice(&body).map_err(|_| self.not_a_gate(StatusCode::OK))
    }

    /// Passes the parts of a response on as they arrive. Fails if the end of the response is missing.
    pub(super) async fn stream(
        &self,
        path: &str,
        mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut response = self.send(Method::GET, path).await?;
        if !response.status().is_success() {
            let body = response.body().limit(MAX_RESPONSE).await;
            return Err(self.refused(response.status(), &body.unwrap_or_default()));
        }
        loop {
            match timeout(TIMEOUT, response.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(part))) => write(&part)?,
                Ok(Some(Err(error))) => return Err(self.unreachable(&error.into())),
                Err(_) => return Err(self.unreachable(&HttpError::Timeout)),
            }
        }
    }

    async fn send(&self, method: Method, path: &str) -> Result<awc::ClientResponse, Failure> {
        let url = format!("{}{path}", self.url);
        let mut request = self.client.request(method, url);
        request = request.insert_header((ACCEPT, "application/json"));
        if let Some(token) = &self.token {
            let value = format!("Bearer {}", token.expose_secret());
            let value = HeaderValue::try_from(value)
                .map_err(|_| Failure::other("management.token: a header cannot hold this token"))?;
            request = request.insert_header((AUTHORIZATION, value));
        }
        let sent = timeout(TIMEOUT, request.send()).await;
        let sent = sent.map_err(|_| self.unreachable(&HttpError::Timeout))?;
        sent.map_err(|error| match &error {
            SendRequestError::Connect(ConnectError::Io(error)) => {
                self.unreachable(&HttpError::Unreachable(reason(error, "")))
            }
            error => self.unreachable(&HttpError::from(error)),
        })
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        let reason: &dyn fmt::Display = match error {
            HttpError::Unreachable(reason) | HttpError::Broken(reason) => reason,
            error => error,
        };
        Failure::other(format_args!(
            "cannot reach the gate on {}: {reason}",
            self.bind
        ))
    }

    pub(super) fn not_a_gate(&self, status: StatusCode) -> Failure {
        Failure::other(format_args!(
            "what listens on {} is not the management listener of a gate: it responded with status {}",
            self.bind,
            status.as_u16()
        ))
    }

    /// Says what to do about a response that is an error.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else {
            return self.not_a_gate(status);
        };
        let (text, hint) = match (error.code.as_str(), error.message) {
            (_, Some(message)) => (plain(&message), None),
            ("not_signed_in", _) => (
                "the gate requires its management token".to_owned(),
                Some("name the config of the gate, which says where its token is: --config FILE"),
            ),
            ("invalid_credentials", _) => (
                "the gate has another management token".to_owned(),
                Some("does it run with another config, or was the token replaced?"),
            ),
            ("imgwire_failed", _) => (
                format!("Imgwire failed (request {})", plain(&error.request_id)),
                Some("the log of the gate has the reason"),
            ),
            (code, _) => (
                format!(
                    "the gate responded with {} {} (request {})",
                    status.as_u16(),
                    plain(code),
                    plain(&error.request_id)
                ),
                Some("the log of the gate has the reason"),
            ),
        };
        Failure::Other { text, hint }
    }
}

/// One segment of a path, or one value of a query.
pub(super) fn encoded(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// A text for the terminal, of which another program may have sent any bytes.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

/// Lines of columns, as wide as their longest cell. The last one is not filled up.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [["a", "b", "c"], ["löng", "", "x y"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "a     b  c\nlöng     x y");
        assert_eq!(aligned::<2>(&[]), "");
    }

    #[test]
    fn any_text_is_one_segment() {
        assert_eq!(encoded("a/b?c#d%é").to_string(), "a%2Fb%3Fc%23d%25%C3%A9");
    }
}
