//! Parses PostgreSQL URLs.

use tokio_postgres::Config;

pub(super) struct PostgresUrl {
    pub(super) hosts: Config,
    /// Without the hosts, which cannot be removed from a [`Config`].
    pub(super) config: Config,
}

impl PostgresUrl {
    /// `None` if the scheme is another one. No message shows the text, which may contain a password.
    pub(super) fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
        is_postgres.then(|| {
            let config = |text: &str| {
                let config = text.parse();
                config.map_err(
                    |_| "is not a PostgreSQL URL; write for example \"postgres://gate@db/app\"",
                )
            };
            Ok(Self {
                hosts: config(text)?,
                config: config(&without_hosts(text))?,
            })
        })
    }
}

/// The URL without its hosts, split as tokio-postgres does.
fn without_hosts(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (user, rest) = rest.split_at(rest.find('@').map_or(0, |at| at + 1));
    let rest = rest.find(['/', '?']).map_or("", |end| rest.split_at(end).1);
    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let names_host = |parameter: &&str| {
        let name = parameter.split('=').next();
        matches!(name, Some("host" | "hostaddr" | "port"))
    };
    let parameters = parameters
        .split('&')
        .filter(|it| !it.is_empty() && !names_host(it));
    let parameters = parameters.collect::<Vec<_>>().join("&");
    format!("{scheme}://{user}{database}?{parameters}")
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::{Host, SslMode};

    use super::*;

    #[test]
    fn the_config_has_everything_but_the_hosts() {
        for (url, count) in [
            ("postgres://gate:a%40b@one:1,two:2/app?sslmode=require", 2),
            (
                "postgresql://gate:a%40b@/app?host=one&hostaddr=127.0.0.1&port=1&sslmode=require",
                1,
            ),
            (
                "postgres://gate:a%40b@%2Frun%2Fpg:5433/app?sslmode=require&target_session_attrs=any",
                1,
            ),
        ] {
            let url = PostgresUrl::parse(url).expect("its scheme").expect("a URL");
            assert_eq!(url.hosts.get_hosts().len(), count);
            let hosts: &[Host] = &[];
            assert_eq!(url.config.get_hosts(), hosts);
            assert!(url.config.get_hostaddrs().is_empty() && url.config.get_ports().is_empty());
            assert_eq!(url.config.get_user(), Some("gate"));
            assert_eq!(url.config.get_password(), Some(&b"a@b"[..]));
            assert_eq!(url.config.get_dbname(), Some("app"));
            assert_eq!(url.config.get_ssl_mode(), SslMode::Require);
        }
    }
}
