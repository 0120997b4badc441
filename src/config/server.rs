//! `[server]` and `[management]`: the two listeners and their limits.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use policies::{ByteCount, Interval, KeyedLimitSettings};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    document::Reader,
    origin::{OriginPattern, PublicOrigin},
    secret::{self, Environment, SecretSource},
};

/// `[server]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// The address to listen on: `"IP:PORT"`, or `"unix:PATH"` for a Unix socket. Default: `"127.0.0.1:8080"`.
    pub bind: Bind,
    /// The mode of the socket file if `bind` is a Unix socket, in octal digits. Default: `"0660"`.
    pub socket_mode: SocketMode,
    /// The number of worker threads. Default: one per CPU core.
    pub workers: Option<NonZeroUsize>,
    /// The networks of your reverse proxies, for example `["10.0.0.0/8"]`. The gate accepts a client's address and
    /// identity only from these. The peer of a Unix socket counts as 127.0.0.1. Default: none.
    pub trusted_proxies: Vec<Network>,
    /// The only header in which your proxies report the client's address. Default: `X-Forwarded-For`, or `Forwarded`
    /// if a request has no `X-Forwarded-For`.
    pub client_address: Option<AddressHeader>,
    /// The origin under which browsers reach the gate, for example `"https://app.example.com"`. Set it if a proxy
    /// changes `Host`. Default: the host that `Host` names.
    pub public_origin: Option<PublicOrigin>,
    /// Other origins whose pages may call the gate (CORS), for example `["https://*.example.com"]`. `*` matches one or
    /// more of `[a-z0-9-]` within one label. If anyone can register a matching host (`https://*.vercel.app`), pages may
    /// send bearer tokens but no cookies. Default: none.
    pub allowed_origins: Vec<OriginPattern>,
    /// The largest request body, at most 64 MiB. A larger one is rejected with 413. Default: `"16KiB"`.
    pub body_limit: Size,
    /// The longest time from SIGTERM to the end of the gate, in which running requests finish. Default: `"30s"`.
    pub shutdown_grace: Interval,
    /// After SIGTERM the gate accepts requests for this long, so that load balancers have time to notice; at most for
    /// half of `shutdown_grace`. Default: `"1s"`.
    pub shutdown_delay: Interval,
    /// The maximum number of requests in progress. Further requests fail with 500 `overloaded`. Default: 10000.
    pub max_in_flight: NonZeroU32,
    /// The maximum number of open connections per listener. Further connections wait to be accepted. Default: 10000.
    pub max_connections: NonZeroUsize,
    /// A limit on invalid credentials per client address (IPv6: per /64), counted if the check cost a signature
    /// verification or a call to another service. Past the limit, credentials that would cost as much get 429
    /// `rate_limited`. The limit does not apply to a peer that sends forwarding headers but is not in
    /// `trusted_proxies`. Default: `{ limit = 120, period = "1m" }`.
    pub failures: KeyedLimitSettings,
    /// A limit on reads of images, the allowance and the session, per subject.
    /// Default: `{ limit = 600, period = "1m" }`.
    pub reads: KeyedLimitSettings,
    /// How long a request may take to arrive, from the first byte of its head to the last byte of its body. Default:
    /// `"10s"`.
    pub request_timeout: Interval,
}

impl ServerSettings {
    /// Warns about proxy networks so wide that clients could choose their own address.
    pub(crate) fn check(&self, reader: &mut Reader) {
        let mut proxies = self.trusted_proxies.iter();
        if let Some(network) = proxies.find(|proxy| proxy.is_too_wide()) {
            let message = format!(
                "`{}` covers so many hosts that clients could claim any address; list only the addresses of your proxies",
                network.0
            );
            reader.warning("server.trusted_proxies", message);
        }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            bind: Bind::Tcp((Ipv4Addr::LOCALHOST, 8080).into()),
            socket_mode: SocketMode::default(),
            workers: None,
            trusted_proxies: Vec::new(),
            client_address: None,
            public_origin: None,
            allowed_origins: Vec::new(),
            body_limit: Size(16 << 10),
            shutdown_grace: Interval::from_secs(30),
            shutdown_delay: Interval::from_secs(1),
            max_in_flight: const { NonZeroU32::new(10_000).expect("ten thousand is not zero") },
            max_connections: const { NonZeroUsize::new(10_000).expect("ten thousand is not zero") },
            failures: KeyedLimitSettings::per_minute(
                const { NonZeroU32::new(120).expect("120 is not zero") },
            ),
            reads: KeyedLimitSettings::per_minute(
                const { NonZeroU32::new(600).expect("600 is not zero") },
            ),
            request_timeout: Interval::from_secs(10),
        }
    }
}

/// The header in which proxies report the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressHeader {
    /// `X-Forwarded-For`: a list to which each proxy appends the address of its peer.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): a list of such addresses with parameters.
    Forwarded,
    /// `X-Real-IP`: one address.
    XRealIp,
}

/// `[management]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ManagementSettings {
    /// The address to listen on for health checks, metrics and the operators' API. Default: `"127.0.0.1:9090"`.
    pub bind: Bind,
    /// The bearer token that all endpoints except `/livez`, `/readyz` and `/metrics` require, at least 16 bytes.
    /// Default: none; those endpoints then answer only requests from this machine.
    pub token: Option<SecretSource>,
    /// Host names that requests may have in `Host`, in addition to IP addresses and `localhost`. Default: none.
    pub hosts: Vec<HostName>,
}

impl ManagementSettings {
    pub(crate) fn load_token(
        &self,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) -> Option<Option<SecretString>> {
        const TOKEN_BYTES: usize = 16;

        match &self.token {
            None => Some(None),
            Some(source) => {
                let path = "management.token";
                secret::read(reader, environment, path, source, TOKEN_BYTES).map(Some)
            }
        }
    }
}

impl Default for ManagementSettings {
    fn default() -> Self {
        Self {
            bind: Bind::Tcp((Ipv4Addr::LOCALHOST, 9090).into()),
            token: None,
            hosts: Vec::new(),
        }
    }
}

/// An address to listen on: `"IP:PORT"` or `"unix:PATH"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "an address", "examples" = ["127.0.0.1:8080"]))]
pub enum Bind {
    /// With port 0, the system chooses a free port.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `sun_path` of Linux, without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` must be followed by the path of the socket".to_owned()),
            Some(path) if path.len() > MAX_SOCKET_PATH => Err(format!(
                "the path of the socket has {} bytes, and the system allows {MAX_SOCKET_PATH}; choose a shorter one",
                path.len()
            )),
            Some(path) => Ok(Self::Unix(path.into())),
            None => SocketAddr::from_str(&text).map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is not an address; write for example \"127.0.0.1:8080\" or \"unix:/run/gate.sock\""
                )
            }),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A number of bytes from 1 to 64 MiB, for example `"16KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "ByteCount")]
pub struct Size(usize);

const LARGEST: usize = 64 << 20;

impl Size {
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = ByteCount::deserialize(deserializer)?;
        usize::try_from(count.bytes())
            .ok()
            .filter(|bytes| *bytes <= LARGEST)
            .map(Self)
            .ok_or_else(|| D::Error::custom("the size must be at most 64 MiB"))
    }
}

/// The file mode of a Unix socket in octal digits, for example `"0660"`. It decides which users may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["0660"]))]
pub struct SocketMode(u32);

impl SocketMode {
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    /// The owner and the group.
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for SocketMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(&text, 8).ok();
        match mode.filter(|mode| is_octal && *mode <= 0o777) {
            None => Err(format!(
                "`{text}` is not a file mode; write for example \"0660\""
            )),
            // Connecting takes the right to write.
            Some(mode) if mode & 0o222 == 0 => Err(format!(
                "`{text}` lets no user connect; write for example \"0660\""
            )),
            Some(mode) => Ok(Self(mode)),
        }
    }
}

/// A DNS host name without scheme and port, for example `"gate-admin.internal"`. Case and a final dot do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["gate-admin.internal"]))]
pub struct HostName(String);

impl HostName {
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.eq_ignore_ascii_case(name)
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(&text);
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(allowed)
        };
        if name.len() <= 253 && name.split('.').all(is_label) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(format!(
                "`{text}` is not a host name; write it without scheme and port, for example \
                 \"gate-admin.internal\""
            ))
        }
    }
}

/// The shortest prefixes (IPv4, IPv6) that are plausible for proxies.
const WIDEST: (u8, u8) = (8, 16);

/// A network in CIDR notation, for example `"10.0.0.0/8"`, or one IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[schemars(extend("title" = "a network", "examples" = ["127.0.0.1/32"]))]
pub struct Network(pub IpNet);

impl Network {
    /// Whether the network covers so much of the public Internet that it cannot consist of proxies.
    #[must_use]
    pub fn is_too_wide(&self) -> bool {
        match self.0 {
            IpNet::V4(network) => network.prefix_len() < WIDEST.0,
            IpNet::V6(network) => {
                let is_local = network.network().is_unique_local();
                network.prefix_len() < WIDEST.1 && !(is_local && network.prefix_len() >= 7)
            }
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        IpNet::from_str(&text)
            .or_else(|_| IpAddr::from_str(&text).map(IpNet::from))
            .map(Self)
            .map_err(|_| format!("`{text}` is not a network; write for example \"10.0.0.0/8\""))
    }
}
