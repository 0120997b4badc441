//! The config of a test's gate, section by section.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use imgwire_gate::{config::Faults, server::settings::Settings};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use toml::{Table, Value, toml};

use super::{
    Application, Builder, EVENTS_SECRET, Entry, ROUTE, SECRET, SERVER_API_KEY, SESSION_KEY,
    TestApp, TestClock, quota, rate_limit, signed_in, upload_route, workspace_member,
};

/// A gate under construction: `Gate::standard().server("request_timeout", "1s").start().await`.
///
/// Every section can be set as a whole (`policy`, `identity`, `store`) or key by key (`set`, `server`, `session`).
pub(crate) struct Gate {
    config: Table,
    secrets: HashMap<String, String>,
    pub(super) clock: Arc<TestClock>,
    kinds: fn(Builder) -> Builder,
}

/// A reference to an environment variable, as a secret of the config.
pub(crate) fn env(name: &str) -> Json {
    json!({ "env": name })
}

/// A section of the config: a table, or TOML text.
pub(crate) trait Section {
    fn table(self) -> Table;
}

impl Section for Table {
    fn table(self) -> Table {
        self
    }
}

impl Section for Entry {
    fn table(self) -> Table {
        self.0
    }
}

impl Section for Json {
    fn table(self) -> Table {
        Table::try_from(self).unwrap()
    }
}

impl Section for &str {
    fn table(self) -> Table {
        self.parse().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Section for String {
    fn table(self) -> Table {
        self.as_str().table()
    }
}

impl Gate {
    /// A gate with the identities `app` and `browser`, and neither policies nor routes.
    pub(crate) fn bare() -> Self {
        let config = toml! {
            [server]
            workers = 2
            [management]
            bind = "127.0.0.1:0"
            [imgwire]
            api_key = { env = "TEST_API_KEY" }
            [session]
            key = { env = "TEST_SESSION_KEY" }
            [identities.app]
            kind = "jwt"
            algorithms = ["HS256"]
            secret = { env = "TEST_SECRET" }
            audience = ["imgwire-gate"]
            from = ["bearer", "cookie:__session", "header:x-app-token"]
            [identities.browser]
            kind = "session"
            exchange = ["app"]
        };
        let gate = Self {
            config,
            secrets: HashMap::new(),
            clock: Arc::default(),
            kinds: |builder| builder,
        };
        gate.secret("TEST_API_KEY", SERVER_API_KEY)
            .secret("TEST_SECRET", SECRET)
            .secret("TEST_SESSION_KEY", SESSION_KEY)
            .secret("TEST_EVENTS_SECRET", EVENTS_SECRET)
    }

    /// A gate with the standard policies: signed-in users, members of the workspace, 30 requests per minute and user,
    /// 500 tokens per day and workspace.
    pub(crate) fn standard() -> Self {
        Self::bare()
            .policy("signed-in", signed_in(["app", "browser"]))
            .policy("member", workspace_member().claim("workspaces"))
            .policy("burst", rate_limit().per(["user"]).limit(30).period("1m"))
            .policy("daily", quota().per(["workspace"]).limit(500))
            .chain(["signed-in", "member", "burst", "daily"])
    }

    /// A gate whose only policy is `signed-in`, which accepts these identities.
    pub(crate) fn accepting(identities: impl Serialize) -> Self {
        Self::bare()
            .policy("signed-in", signed_in(identities))
            .chain(["signed-in"])
    }

    fn at(&mut self, path: &str) -> &mut Table {
        path.split('.').fold(&mut self.config, |table, name| {
            let section = table
                .entry(name)
                .or_insert_with(|| Value::Table(Table::new()));
            section.as_table_mut().unwrap()
        })
    }

    /// Sets the key at a path: `set("policies.burst.limit", 1)`.
    pub(crate) fn set(mut self, path: &str, value: impl Serialize) -> Self {
        let (section, key) = path.rsplit_once('.').unwrap();
        let value = Value::try_from(value).unwrap();
        self.at(section).insert(key.to_owned(), value);
        self
    }

    pub(crate) fn without(mut self, path: &str) -> Self {
        let (section, key) = path.rsplit_once('.').unwrap();
        assert!(self.at(section).remove(key).is_some(), "there is no {path}");
        self
    }

    pub(crate) fn server(self, key: &str, value: impl Serialize) -> Self {
        self.set(&format!("server.{key}"), value)
    }

    pub(crate) fn management(self, key: &str, value: impl Serialize) -> Self {
        self.set(&format!("management.{key}"), value)
    }

    pub(crate) fn imgwire(self, key: &str, value: impl Serialize) -> Self {
        self.set(&format!("imgwire.{key}"), value)
    }

    pub(crate) fn session(self, key: &str, value: impl Serialize) -> Self {
        self.set(&format!("session.{key}"), value)
    }

    fn section(mut self, kind: &str, name: &str, section: impl Section) -> Self {
        self.at(kind)
            .insert(name.to_owned(), Value::Table(section.table()));
        self
    }

    pub(crate) fn store(self, name: &str, section: impl Section) -> Self {
        self.section("stores", name, section)
    }

    pub(crate) fn identity(self, name: &str, section: impl Section) -> Self {
        self.section("identities", name, section)
    }

    pub(crate) fn policy(self, name: &str, section: impl Section) -> Self {
        self.section("policies", name, section)
    }

    /// Sets the identities whose credentials start a session.
    pub(crate) fn exchange(self, identities: impl Serialize) -> Self {
        self.set("identities.browser.exchange", identities)
    }

    /// A gate with these policies after `signed-in`.
    pub(crate) fn with_policies<const N: usize>(policies: [(&str, Entry); N]) -> Self {
        let names = policies.iter().map(|(name, _)| (*name).to_owned());
        let chain: Vec<_> = std::iter::once("signed-in".to_owned())
            .chain(names)
            .collect();
        let gate = Self::accepting(["app"]);
        let gate = policies
            .into_iter()
            .fold(gate, |gate, (name, policy)| gate.policy(name, policy));
        gate.chain(chain)
    }

    /// Sets the policies of the usual route.
    pub(crate) fn chain(self, policies: impl Serialize) -> Self {
        self.route(ROUTE, policies)
    }

    /// Sets the policies of the route at a path.
    pub(crate) fn route(self, path: &str, policies: impl Serialize) -> Self {
        self.route_with(json!({ "path": path, "policies": policies }))
    }

    /// Adds a route, or replaces the one with the same path.
    pub(crate) fn route_with(mut self, route: impl Section) -> Self {
        let route = route.table();
        let routes = self.config.entry("routes");
        let routes = routes.or_insert_with(|| Value::Array(Vec::new()));
        let routes = routes.as_array_mut().unwrap();
        routes.retain(|other| other.get("path") != route.get("path"));
        routes.push(Value::Table(route));
        self
    }

    /// Adds a route that uploads through the gate. Its policies are `signed-in` and, if its path names the workspace,
    /// `member`, by the claim `workspaces` unless the gate has such a policy.
    pub(crate) fn upload_route(mut self, path: &str) -> Self {
        if !path.contains("{workspace}") {
            return self.route_with(upload_route(path, ["signed-in"]));
        }
        if !self.at("policies").contains_key("member") {
            self = self.policy("member", workspace_member().claim("workspaces"));
        }
        self.route_with(upload_route(path, ["signed-in", "member"]))
    }

    /// Sends events to a URL.
    pub(crate) fn events(self, url: &str) -> Self {
        self.set("events.url", url)
            .set("events.secret", env("TEST_EVENTS_SECRET"))
    }

    /// Adds the sections of a TOML document, such as a block of the documentation.
    pub(crate) fn include(mut self, document: &str) -> Self {
        let mut document = document.table();
        if let Some(Value::Array(routes)) = document.remove("routes") {
            for route in routes {
                self = self.route_with(route.try_into::<Table>().unwrap());
            }
        }
        merge(&mut self.config, document);
        self
    }

    /// Sets an environment variable of the gate.
    pub(crate) fn secret(mut self, name: &str, secret: &str) -> Self {
        self.secrets.insert(name.to_owned(), secret.to_owned());
        self
    }

    /// Registers kinds of policies and identities.
    pub(crate) fn kinds(mut self, register: fn(Builder) -> Builder) -> Self {
        self.kinds = register;
        self
    }

    /// The config file, with counters in `folder`.
    pub(crate) fn config(&self, base_url: &str, folder: &Path) -> String {
        let main = format!("sqlite:{}", folder.join("gate.db").display());
        let defaults = json!({
            "server": { "bind": "127.0.0.1:0", "shutdown_delay": "10ms" },
            "imgwire": { "base_url": base_url },
        });
        let mut config = defaults.table();
        merge(&mut config, self.config.clone());
        // A store that nothing uses is a warning.
        if toml::to_string(&config).unwrap().contains("\"main\"") {
            let main = json!({ "stores": { "main": { "url": main } } }).table();
            let own = config.clone();
            merge(&mut config, main);
            merge(&mut config, own);
        }
        toml::to_string(&config).unwrap()
    }

    /// Writes the config file `gate.toml` into `folder`.
    pub(crate) fn write(&self, base_url: &str, folder: &Path) -> PathBuf {
        let path = folder.join("gate.toml");
        fs::write(&path, self.config(base_url, folder)).unwrap();
        path
    }

    pub(super) fn builder(&self) -> Builder {
        (self.kinds)(Application::builder().clock(self.clock.clone()))
    }

    /// Reads the config file.
    pub(super) fn settings(&self, base_url: &str, folder: &Path) -> Result<Settings, Faults> {
        let environment = |name: &str| self.secrets.get(name).cloned();
        let config = self.config(base_url, folder);
        self.builder().load("gate.toml", &config, &environment)
    }

    pub(crate) async fn start(self) -> TestApp {
        self.start_in(tempfile::tempdir().unwrap()).await
    }

    /// Starts a gate whose counters are in `folder`.
    pub(crate) async fn start_in(self, folder: TempDir) -> TestApp {
        TestApp::start_in(self, folder).await
    }
}

/// Writes the keys of `from` over those of `into`, section by section.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
