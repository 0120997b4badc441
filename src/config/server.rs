//! `[server]` and `[management]`: where the gate listens, and whom it believes.

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
    /// Where to listen: an address with its port, or `unix:` and the path of a socket.
    pub bind: Bind,
    /// The mode of the file, if `bind` is a Unix socket: octal digits, for example "0660".
    pub socket_mode: SocketMode,
    /// How many workers; left out: one per core.
    pub workers: Option<NonZeroUsize>,
    /// Networks of the proxies that may report a client's address and identity. The peer of a Unix socket counts as
    /// 127.0.0.1.
    pub trusted_proxies: Vec<Network>,
    /// The one header in which these proxies report a client's address. Without this key it is `X-Forwarded-For`, or
    /// `Forwarded` in a request that has no `X-Forwarded-For`.
    pub client_address: Option<AddressHeader>,
    /// The gate's own origin, if `Host` cannot be trusted to name it, for example `https://app.example.com`.
    pub public_origin: Option<PublicOrigin>,
    /// Origins of other hosts whose pages may use the gate, for example "https://*.example.com". `*` is one or more
    /// of `[a-z0-9-]` within one label. Under a public suffix (`https://*.vercel.app`) pages may send bearer tokens, and
    /// no cookies.
    pub allowed_origins: Vec<OriginPattern>,
    /// The largest body that is read.
    pub body_limit: Size,
    /// How long running requests may take to end after SIGTERM.
    pub shutdown_grace: Interval,
    /// How long after SIGTERM, and after the last request since, requests are still taken, so that whoever balances
    /// the load has noticed; half of `shutdown_grace` at most.
    pub shutdown_delay: Interval,
    /// How many requests may run at once; beyond it the answer is 500 `overloaded`.
    pub max_in_flight: NonZeroU32,
    /// How many connections each listener has at most; further ones wait to be accepted.
    pub max_connections: NonZeroUsize,
    /// How many credentials of one address (IPv6: of one /64) may fail in a period, if each cost a signature check or a
    /// call to another service. Past the limit, the address gets 429 `rate_limited` for what would cost such a call. It
    /// is off for requests of a peer that sends forwarding headers and is no trusted proxy.
    pub failures: KeyedLimitSettings,
    /// How often one subject may read in a period: the allowance and the session.
    pub reads: KeyedLimitSettings,
    /// How long a request may take to arrive, from the first byte of its head to the end of its body.
    pub request_timeout: Interval,
}

impl ServerSettings {
    /// Warns about proxy networks that cover the whole Internet: clients could then choose their own address.
    pub(crate) fn check(&self, reader: &mut Reader) {
        let mut proxies = self.trusted_proxies.iter();
        if let Some(network) = proxies.find(|proxy| proxy.is_everyone()) {
            let message = format!(
                "{} is not a list of proxies: any client can claim any address; name the addresses of your proxies only",
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
            body_limit: Size::from_kib(16),
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

/// A header in which proxies report a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressHeader {
    /// `X-Forwarded-For`: a list, to which each proxy appends the address that it sees.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): the same with more about each.
    Forwarded,
    /// `X-Real-IP`: one address.
    XRealIp,
}

/// `[management]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ManagementSettings {
    /// Where to listen for health checks and metrics.
    pub bind: Bind,
    /// The bearer token of all endpoints but `/livez`, `/readyz` and `/metrics`, at least 16 bytes; left out: those
    /// endpoints are open to this machine only.
    pub token: Option<SecretSource>,
    /// Names that requests may have in `Host`, besides IP addresses and `localhost`.
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

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum Bind {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` needs the path of the socket".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => SocketAddr::from_str(&text).map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is no address; write for example \"127.0.0.1:8080\" or \"unix:/run/gate.sock\""
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

/// A number of bytes, for example `"16KiB"`: at least one, at most 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "ByteCount")]
pub struct Size(usize);

const LARGEST: usize = 64 << 20;

impl Size {
    #[must_use]
    pub const fn from_kib(kib: u16) -> Self {
        Self((kib as usize) << 10)
    }

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

/// The mode of a Unix socket's file: who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
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
        mode.filter(|mode| is_octal && *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is not the mode of a socket; write for example \"0660\"")
            })
    }
}

/// A host's name as DNS knows it, in lower case and without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct HostName(String);

impl HostName {
    /// Ignores case and a final dot.
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
                "`{text}` is not a host's name; write the name without scheme and port, for example \
                 \"gate-admin.internal\""
            ))
        }
    }
}

/// The shortest prefixes (IPv4, IPv6) that a list of proxies plausibly has.
const WIDEST: (u8, u8) = (8, 16);

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Network(pub IpNet);

impl Network {
    /// Whether it covers so much of the public Internet that it cannot be a list of proxies.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
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
            .map_err(|_| format!("`{text}` is no network; write for example \"10.0.0.0/8\""))
    }
}
