//! What the parameters of PostgreSQL URLs set.

use std::{path::PathBuf, str::FromStr, time::Duration};

use policies::SecretSource;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use super::url::{NOT_ENCODED, Parts, ServerRole, TlsMode, some};

/// Parameters that matter, and that the gate cannot honour, each with the reason.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("passfile", "write `password` in the config"),
    ("service", "write the host and the database in the URL"),
    ("servicefile", "write the host and the database in the URL"),
    ("replication", "the gate does not replicate"),
    (
        "require_auth",
        "restrict the methods in the server's pg_hba.conf",
    ),
    ("requirepeer", "use TLS with sslmode=verify-full"),
    ("sslcrl", "the gate reads no revocation lists"),
    ("sslcrldir", "the gate reads no revocation lists"),
    ("sslidentity", "write sslcert and sslkey, with files in PEM"),
    ("sslpassword", "decrypt the key, and protect its file"),
];

/// Parameters of drivers, pools and providers that change nothing of what the gate does. docs/scaling.md lists them.
const IGNORED: &[&str] = &[
    // libpq
    "connect_timeout",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcompression",
    // Prisma
    "connection_limit",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "pgbouncer",
    "pool_timeout",
    "single_use_connections",
    "socket_timeout",
    "statement_cache_size",
    // Other drivers and pools
    "advisory_locks",
    "binary_parameters",
    "checkout_timeout",
    "conn_health_checks",
    "conn_max_age",
    "default_query_exec_mode",
    "description_cache_capacity",
    "idle_in_transaction_session_timeout",
    "idle_timeout",
    "lock_timeout",
    "loginTimeout",
    "max",
    "max_connections",
    "max_lifetime",
    "min_connections",
    "pool",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_mode",
    "pool_size",
    "prepare",
    "preparedStatementCacheQueries",
    "prepared_statement_cache_size",
    "prepared_statements",
    "prepareThreshold",
    "query_timeout",
    "reaping_frequency",
    "reWriteBatchedInserts",
    "socketTimeout",
    "sslfactory",
    "statement-cache-capacity",
    "statement_cache_capacity",
    "statement_timeout",
    "stringtype",
    "tcpKeepAlive",
    "timezone",
    "uselibpqcompat",
    // Supabase and Vercel
    "supa",
    "workaround",
];

const TLS_MODES: &[(&str, TlsMode)] = &[
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Prefer),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
    ("no-verify", TlsMode::NoVerify),
];

impl Parts {
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let list = || value.split(',').map(str::to_owned).collect();
        let config = &mut self.config;
        match name {
            "host" => self.hosts = list(),
            "hostaddr" => self.addresses = list(),
            "port" => self.ports = list(),
            "user" => self.user = some(value),
            "password" => self.password = some(value),
            "dbname" | "database" => self.database = some(value),
            "schema" | "currentSchema" | "search_path" => self.search_path = some(value),
            "application_name" | "ApplicationName" => _ = config.application_name(&value),
            "options" => _ = config.options(&value),
            "keepalives" => _ = config.keepalives(value != "0"),
            "keepalives_idle" => _ = config.keepalives_idle(seconds(name, &value)?),
            "keepalives_interval" => _ = config.keepalives_interval(seconds(name, &value)?),
            "keepalives_count" => _ = config.keepalives_retries(number(name, &value)?),
            "tcp_user_timeout" => {
                let millis = number(name, &value)?;
                config.tcp_user_timeout(Duration::from_millis(millis));
            }
            "target_session_attrs" => {
                self.role = one_of(
                    name,
                    &value,
                    &[
                        ("any", ServerRole::Any),
                        ("primary", ServerRole::Primary),
                        ("read-write", ServerRole::Primary),
                        ("standby", ServerRole::Standby),
                        ("read-only", ServerRole::Standby),
                    ],
                )?;
            }
            "load_balance_hosts" => {
                self.is_random = one_of(name, &value, &[("disable", false), ("random", true)])?;
            }
            name => return self.set_security(name, value),
        }
        Ok(())
    }

    fn set_security(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "sslmode" | "ssl" | "ssl-mode" => self.mode = Some(tls_mode(name, &value)?),
            "sslaccept" => self.accepts_invalid = Some(value == "accept_invalid_certs"),
            "sslrootcert" | "ssl-root-cert" if value == "system" => self.trusts_system = true,
            "sslrootcert" | "ssl-root-cert" => self.tls.ca = some(value).map(PathBuf::from),
            "sslcert" => self.tls.certificate = some(value).map(PathBuf::from),
            "sslkey" => self.tls.key = some(value).map(|path| SecretSource::File(path.into())),
            "sslnegotiation" => {
                let (direct, postgres) = (SslNegotiation::Direct, SslNegotiation::Postgres);
                let allowed = [("postgres", postgres), ("direct", direct)];
                self.config.ssl_negotiation(one_of(name, &value, &allowed)?);
            }
            "channel_binding" => {
                let allowed = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                self.config.channel_binding(one_of(name, &value, &allowed)?);
            }
            name => return already(name, &value),
        }
        Ok(())
    }
}

/// Accepts parameters that change nothing of what the gate does.
fn already(name: &str, value: &str) -> Result<(), String> {
    let only: &[_] = match name {
        "client_encoding" | "encoding" | "charset" => {
            &[("utf8", ()), ("utf-8", ()), ("unicode", ()), ("auto", ())]
        }
        "gssencmode" => &[("disable", ()), ("prefer", ())],
        "sslcertmode" => &[("allow", ()), ("disable", ())],
        "sslsni" => &[("1", ())],
        "ssl_min_protocol_version" => &[("TLSv1", ()), ("TLSv1.1", ()), ("TLSv1.2", ())],
        "ssl_max_protocol_version" => &[("TLSv1.3", ())],
        name if IGNORED.iter().any(|it| name.eq_ignore_ascii_case(it)) => return Ok(()),
        name => return Err(unknown(name)),
    };
    one_of(name, value, only)
}

/// Includes the booleans of JDBC and node-postgres.
fn tls_mode(name: &str, value: &str) -> Result<TlsMode, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(TlsMode::Require),
        "false" | "0" | "off" | "no" => Ok(TlsMode::Disable),
        value => one_of(name, value, TLS_MODES),
    }
}

/// What `value` stands for among the values that are allowed.
fn one_of<T: Copy>(name: &str, value: &str, allowed: &[(&str, T)]) -> Result<T, String> {
    let found = allowed
        .iter()
        .find(|(text, _)| value.eq_ignore_ascii_case(text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let texts: Vec<_> = allowed
            .iter()
            .map(|(text, _)| format!("`{text}`"))
            .collect();
        expected(name, &texts.join(" or "))
    })
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| expected(name, "a whole number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    number(name, value).map(Duration::from_secs)
}

fn expected(name: &str, values: &str) -> String {
    format!("has the parameter `{name}`, whose value must be {values}")
}

fn unknown(name: &str) -> String {
    if let Some((name, reason)) = UNSUPPORTED.iter().find(|(known, _)| *known == name) {
        return format!("has the parameter `{name}`, which the gate does not support; {reason}");
    }
    let is_name = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
    // A password that is not percent-encoded may end up here.
    match name.len() <= 40 && name.chars().all(is_name) {
        true => format!("has the unknown parameter `{name}`; remove it"),
        false => NOT_ENCODED.to_owned(),
    }
}
