//! The parameters of PostgreSQL URLs.

pub(super) const NOT_ENCODED: &str = "has special characters that are not percent-encoded; write `?`, `&`, `/`, `@` and \
                                      `#` in the user name and the password as %3F, %26, %2F, %40 and %23";

/// What a parameter sets.
pub(super) enum Parameter {
    Host,
    HostAddress,
    Port,
    User,
    Password,
    Database,
    TlsMode,
    TlsAccept,
    RootCertificate,
    Certificate,
    Key,
    TlsNegotiation,
    ChannelBinding,
    TargetSession,
    LoadBalance,
    ApplicationName,
    Options,
    SearchPath,
    Keepalives,
    KeepalivesIdle,
    KeepalivesInterval,
    KeepalivesCount,
    TcpUserTimeout,
    /// The gate always does what these values say.
    Only(&'static [&'static str]),
    /// It concerns another tool, or what the gate bounds by itself.
    Ignored,
}

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

/// Finds a parameter by its name.
pub(super) fn parameter(name: &str) -> Result<Parameter, String> {
    Ok(match name {
        "host" => Parameter::Host,
        "hostaddr" => Parameter::HostAddress,
        "port" => Parameter::Port,
        "user" => Parameter::User,
        "password" => Parameter::Password,
        "dbname" | "database" => Parameter::Database,
        "sslmode" | "ssl" | "ssl-mode" => Parameter::TlsMode,
        "sslaccept" => Parameter::TlsAccept,
        "sslrootcert" | "ssl-root-cert" => Parameter::RootCertificate,
        "sslcert" => Parameter::Certificate,
        "sslkey" => Parameter::Key,
        "sslnegotiation" => Parameter::TlsNegotiation,
        "channel_binding" => Parameter::ChannelBinding,
        "target_session_attrs" => Parameter::TargetSession,
        "load_balance_hosts" => Parameter::LoadBalance,
        "application_name" | "ApplicationName" => Parameter::ApplicationName,
        "options" => Parameter::Options,
        "schema" | "currentSchema" | "search_path" => Parameter::SearchPath,
        "keepalives" => Parameter::Keepalives,
        "keepalives_idle" => Parameter::KeepalivesIdle,
        "keepalives_interval" => Parameter::KeepalivesInterval,
        "keepalives_count" => Parameter::KeepalivesCount,
        "tcp_user_timeout" => Parameter::TcpUserTimeout,
        "client_encoding" | "encoding" | "charset" => {
            Parameter::Only(&["utf8", "utf-8", "unicode", "auto"])
        }
        "gssencmode" => Parameter::Only(&["disable", "prefer"]),
        "sslcertmode" => Parameter::Only(&["allow", "disable"]),
        "sslsni" => Parameter::Only(&["1"]),
        "ssl_min_protocol_version" => Parameter::Only(&["TLSv1", "TLSv1.1", "TLSv1.2"]),
        "ssl_max_protocol_version" => Parameter::Only(&["TLSv1.3"]),
        name if IGNORED
            .iter()
            .any(|ignored| name.eq_ignore_ascii_case(ignored)) =>
        {
            Parameter::Ignored
        }
        name => return Err(unknown(name)),
    })
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
