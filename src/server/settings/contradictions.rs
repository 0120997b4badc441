//! Settings that are valid each for itself, and cannot work together.

use std::{
    net::{IpAddr, SocketAddr},
    path,
    time::Duration,
};

use policies::Interval;
use url::Url;

use crate::{
    config::{
        ImgwireSettings, ManagementSettings, ServerSettings, SessionSettings, TelemetrySettings,
        document::Reader, imgwire::PoolSettings, server::Bind, session::COOKIE,
    },
    identities::Profiles,
};

/// A smaller body has no room for what the API documents.
const MIN_BODY_BYTES: usize = 512;

/// More threads than any machine has cores.
const MAX_WORKERS: usize = 1024;

pub(super) fn check_server(reader: &mut Reader, server: &ServerSettings) {
    if server
        .workers
        .is_some_and(|workers| workers.get() > MAX_WORKERS)
    {
        let message = format!("must be at most {MAX_WORKERS}; one per CPU core is enough");
        reader.fault("server.workers", message);
    }
    let bytes = server.body_limit.bytes();
    if bytes < MIN_BODY_BYTES {
        let message = format!(
            "ordinary requests are larger than {bytes} bytes and would be refused with 413; write at least \"1KiB\""
        );
        reader.warning("server.body_limit", message);
    }
    warn_of_repetition(reader, "server.allowed_origins", &server.allowed_origins);
    warn_of_repetition(reader, "server.trusted_proxies", &server.trusted_proxies);
    if server.shutdown_delay > server.shutdown_grace {
        let message = format!(
            "has no full effect: the gate ends after `shutdown_grace` ({}) at the latest",
            show(server.shutdown_grace)
        );
        reader.warning("server.shutdown_delay", message);
    }
}

fn warn_of_repetition<T: PartialEq>(reader: &mut Reader, path: &str, list: &[T]) {
    for (index, entry) in list.iter().enumerate() {
        if list[..index].contains(entry) {
            reader.warning(format!("{path}[{index}]"), "is listed twice");
        }
    }
}

/// Registered at IANA for OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

pub(super) fn check_telemetry(reader: &mut Reader, telemetry: &TelemetrySettings) {
    let Some(otlp) = &telemetry.otlp else { return };
    let url = otlp.as_str().trim_end_matches('/');
    if url.contains('?') {
        reader.fault("telemetry.otlp", "must not contain a query");
    } else if let Some(base) = url.strip_suffix("/v1/traces") {
        let message =
            format!("must be the base URL, because the gate adds `/v1/traces`; write \"{base}\"");
        reader.fault("telemetry.otlp", message);
    } else if Url::parse(url).is_ok_and(|url| url.port() == Some(GRPC_PORT)) {
        let message = format!(
            "port {GRPC_PORT} is that of OTLP over gRPC, and the gate sends OTLP over HTTP, for which collectors listen \
             on port 4318"
        );
        reader.warning("telemetry.otlp", message);
    }
}

pub(super) fn check_listeners(
    reader: &mut Reader,
    server: &ServerSettings,
    management: &ManagementSettings,
) {
    const PUBLIC: &str = "server.bind";
    const MANAGEMENT: &str = "management.bind";

    if !is_same(&server.bind, &management.bind) {
        return;
    }
    // The fault belongs to a key that the file has.
    let (key, other, address) = if reader.has(MANAGEMENT) || !reader.has(PUBLIC) {
        (MANAGEMENT, PUBLIC, &server.bind)
    } else {
        (PUBLIC, MANAGEMENT, &management.bind)
    };
    let remedy = match address {
        Bind::Tcp(_) => "choose another port",
        Bind::Unix(_) => "choose another path",
    };
    let message = format!("takes the same address as `{other}`, which is `{address}`; {remedy}");
    reader.fault(key, message);
}

/// Whether two listeners need the same address. Port 0 is another one each time.
fn is_same(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Tcp(one), Bind::Tcp(other)) => {
            one.port() == other.port() && one.port() != 0 && overlap(one, other)
        }
        (Bind::Unix(one), Bind::Unix(other)) => {
            let from_root = |socket| path::absolute(socket).ok();
            from_root(one) == from_root(other)
        }
        (Bind::Tcp(_), Bind::Unix(_)) | (Bind::Unix(_), Bind::Tcp(_)) => false,
    }
}

/// An unspecified IPv6 address also takes the IPv4 addresses.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    one == other || covers(one, other) || covers(other, one)
}

pub(super) fn check_imgwire(reader: &mut Reader, imgwire: &ImgwireSettings) {
    if imgwire.deadline < imgwire.timeout {
        let timeout = show(imgwire.timeout);
        // The fault belongs to a key that the file has.
        let (key, message) = if reader.has("imgwire.deadline") {
            let message = format!(
                "is less than `timeout` ({timeout}), so that no attempt could take as long as it may; write at least \
                 \"{timeout}\", or a smaller `timeout`"
            );
            ("imgwire.deadline", message)
        } else {
            let deadline = show(imgwire.deadline);
            let message = format!(
                "is more than `deadline` ({deadline}), which ends all attempts; write at most \"{deadline}\", or a \
                 larger `deadline`"
            );
            ("imgwire.timeout", message)
        };
        reader.fault(key, message);
    }
    if let Some(pool) = &imgwire.pool {
        check_pool(reader, pool);
    }
}

/// The pool and its bookkeeping live in memory.
const MAX_POOL_SIZE: usize = 100_000;

fn check_pool(reader: &mut Reader, pool: &PoolSettings) {
    if pool.size.get() > MAX_POOL_SIZE {
        let message = format!("must be at most {MAX_POOL_SIZE}");
        reader.fault("imgwire.pool.size", message);
    }
    if pool.max_age.get() < SECOND {
        let message = "must be at least \"1s\", because a token would be too old before a request could use it";
        reader.fault("imgwire.pool.max_age", message);
    }
}

/// The lifetime of a cookie is a number of seconds.
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn check_session(
    reader: &mut Reader,
    session: &SessionSettings,
    identities: &Profiles<'_>,
) {
    let idle_ttl = session.idle_ttl.unwrap_or(session.ttl);
    for (key, ttl) in [("session.ttl", session.ttl), ("session.idle_ttl", idle_ttl)] {
        if ttl.get() < SECOND && reader.has(key) {
            reader.fault(key, "must be at least \"1s\"");
        }
    }
    let name = session.cookie.name.as_str();
    if let Some(identity) = identities.reader_of_cookie(name) {
        let message = format!(
            "the identity `{identity}` reads its credential from the cookie `{name}`, which is the session's; choose \
             another `name`"
        );
        reader.fault(COOKIE, message);
    }
    if let Some(idle_ttl) = session.idle_ttl
        && idle_ttl > session.ttl
    {
        let message = format!(
            "has no effect, because a session ends after `ttl` ({}) anyway; write less than that, or remove it",
            show(session.ttl)
        );
        reader.warning("session.idle_ttl", message);
    }
}

fn show(interval: Interval) -> String {
    format!("{:?}", interval.get())
}
