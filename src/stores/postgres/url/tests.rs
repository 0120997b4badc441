use super::*;

fn parse(url: &str) -> Result<PostgresUrl, String> {
    PostgresUrl::parse(url).expect("its scheme")
}

fn shown(url: &PostgresUrl) -> Vec<(String, Option<IpAddr>, u16)> {
    let targets = url.targets.iter().map(|target| {
        let host = match &target.host {
            None => String::new(),
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
        };
        (host, target.address, target.port)
    });
    targets.collect()
}

#[test]
fn the_urls_of_providers_and_tools_are_read() {
    let local = Some(IpAddr::from([127, 0, 0, 1]));
    for (url, hosts, user) in [
        (
            "postgres://gate:a%40b@one:1,two:2/app?sslmode=require",
            vec![("one", None, 1), ("two", None, 2)],
            "gate",
        ),
        (
            "postgresql://gate:a%40b@/app?host=one&hostaddr=127.0.0.1&port=1&sslmode=require",
            vec![("one", local, 1)],
            "gate",
        ),
        (
            "postgres://gate:a%40b@%2Frun%2Fpg:5433/app?sslmode=require",
            vec![("/run/pg", None, 5433)],
            "gate",
        ),
        (
            "postgres://gate:a@b@[::1]:6432,[fe80::1]/app?sslmode=require",
            vec![("::1", None, 6432), ("fe80::1", None, 5432)],
            "gate",
        ),
        // Supabase, by its pooler
        (
            "postgres://postgres.abcdef:a%40b@aws-0-eu-central-1.pooler.supabase.com:6543/app?sslmode=require&supa=base-pooler.x",
            vec![("aws-0-eu-central-1.pooler.supabase.com", None, 6543)],
            "postgres.abcdef",
        ),
        // Neon
        (
            "postgresql://gate:a%40b@ep-cool-1-pooler.eu.aws.neon.tech/app?sslmode=require&channel_binding=require&options=endpoint%3Dep-cool-1",
            vec![("ep-cool-1-pooler.eu.aws.neon.tech", None, 5432)],
            "gate",
        ),
        // Azure
        (
            "postgres://gate%40server:a%40b@server.postgres.database.azure.com:5432/app?sslmode=require",
            vec![("server.postgres.database.azure.com", None, 5432)],
            "gate@server",
        ),
        // Cloud SQL, as Prisma writes it
        (
            "postgresql://gate:a%40b@localhost/app?host=/cloudsql/project:region:instance&sslmode=require",
            vec![("/cloudsql/project:region:instance", None, 5432)],
            "gate",
        ),
        // Prisma
        (
            "postgresql://gate:a%40b@db:6432/app?schema=shop&pgbouncer=true&connection_limit=1&pool_timeout=20&connect_timeout=10&statement_cache_size=0&sslmode=require&sslaccept=strict",
            vec![("db", None, 6432)],
            "gate",
        ),
        // SQLAlchemy, JDBC
        (
            "postgresql+asyncpg://gate:a%40b@db/app?ssl=require",
            vec![("db", None, 5432)],
            "gate",
        ),
        (
            "jdbc:postgresql://db/app?user=gate&password=a%40b&ssl=true&currentSchema=shop&prepareThreshold=0",
            vec![("db", None, 5432)],
            "gate",
        ),
    ] {
        let read = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let hosts: Vec<_> = hosts
            .into_iter()
            .map(|(host, address, port)| (host.to_owned(), address, port))
            .collect();
        assert_eq!(shown(&read), hosts, "{url}");
        assert_eq!(read.config.get_user(), Some(user), "{url}");
        assert_eq!(read.config.get_password(), Some(&b"a@b"[..]), "{url}");
        assert_eq!(read.config.get_dbname(), Some("app"), "{url}");
        assert_eq!(read.ssl_mode(&TlsMaterial::default()), SslMode::Require);
        assert!(read.config.get_hosts().is_empty());
    }
}

#[test]
fn the_modes_of_tls_are_those_of_libpq_except_that_require_verifies() {
    let (prefer, require) = (SslMode::Prefer, SslMode::Require);
    for (parameters, mode, verification) in [
        ("", prefer, Verification::Full),
        ("sslmode=disable", SslMode::Disable, Verification::Full),
        ("sslmode=allow", prefer, Verification::Off),
        ("sslmode=prefer", prefer, Verification::Off),
        ("sslmode=require", require, Verification::Full),
        (
            "sslmode=verify-ca&sslrootcert=ca.pem",
            require,
            Verification::Authority,
        ),
        ("sslmode=verify-full", require, Verification::Full),
        ("sslmode=VERIFY-FULL", require, Verification::Full),
        ("sslrootcert=system", require, Verification::Full),
        ("sslmode=no-verify", require, Verification::Off),
        (
            "sslmode=require&sslaccept=accept_invalid_certs",
            require,
            Verification::Off,
        ),
        (
            "sslmode=prefer&sslaccept=strict",
            prefer,
            Verification::Full,
        ),
        ("ssl=true", require, Verification::Full),
        ("ssl=0", SslMode::Disable, Verification::Full),
    ] {
        let url = parse(&format!("postgres://gate@db/app?{parameters}")).expect(parameters);
        let none = TlsMaterial::default();
        assert_eq!(
            (url.ssl_mode(&none), url.verification()),
            (mode, verification),
            "{parameters}"
        );
    }
}

#[test]
fn what_the_gate_cannot_honour_is_named() {
    for (rest, expected) in [
        ("db/app?sslcrl=crl.pem", "`sslcrl`"),
        ("db/app?passfile=p", "`passfile`"),
        ("db/app?sslmode=verify-all", "`sslmode`"),
        (
            "db/app?sslmode=verify-full&sslaccept=accept_invalid_certs",
            "contradict",
        ),
        (
            "db/app?sslmode=prefer&sslrootcert=ca.pem",
            "does not require TLS",
        ),
        ("db/app?sslmode=verify-ca&sslrootcert=system", "verify-full"),
        ("db/app?client_encoding=latin1", "`client_encoding`"),
        (
            "db/app?target_session_attrs=prefer-standby",
            "`target_session_attrs`",
        ),
        (
            "db/app?ssl_min_protocol_version=TLSv1.3",
            "`ssl_min_protocol_version`",
        ),
        ("db/app?colour=red", "`colour`"),
        ("/app", "no host"),
        ("db:port/app", "not a PostgreSQL URL"),
        ("one:1,two:2,three/app?port=1,2", "as many ports"),
    ] {
        let Err(error) = parse(&format!("postgres://gate@{rest}")) else {
            panic!("{rest} is accepted")
        };
        assert!(error.contains(expected), "{rest}: {error}");
    }
    for url in [
        "postgres://gate:s3?cret@db/app",
        "postgres://gate:s3/cret@db/app",
        "postgres://gate:s3#cret@db/app",
    ] {
        let error = parse(url).err();
        assert!(error.is_none_or(|error| !error.contains("cret")), "{url}");
    }
}
