//! The config in force, and how the page changes it.

use std::{io, net::SocketAddr, path::PathBuf, sync::OnceLock};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use policies::{Interval, Per, PolicyName};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    credential::credential,
    events::{Verifier, point_events_at},
};
use crate::{
    config::Faults,
    gate::route_paths::RouteAction,
    server::{
        reload::Reloader,
        settings::{Fixed, Settings},
    },
};

/// Loads a config as the sandbox does when it starts.
pub(crate) type Load = Box<dyn Fn(&str) -> Result<Settings, Faults> + Send + Sync>;

/// Where the config comes from.
pub(crate) enum TextSource {
    /// The demo's own, which the page can edit.
    BuiltIn(&'static str),
    /// The user's own. The page only has its file read again, because a config from a page must be confined, and the
    /// user's own is not. `None` for what can be read only once, such as standard input or a pipe.
    Own(Option<PathBuf>),
}

/// The config of the sandbox.
pub(crate) struct Config {
    /// The name in errors.
    file: String,
    source: TextSource,
    load: Load,
    /// The sections that took effect at start.
    fixed: Fixed,
    /// The address of the gate, set once it is built.
    pub(crate) address: OnceLock<SocketAddr>,
    in_force: Mutex<InForce>,
}

pub(super) struct InForce {
    text: String,
    since: Timestamp,
    /// The changed sections that take effect only after a restart.
    waiting: Vec<String>,
    /// What the policies that count count by.
    pub(super) counted_by: Vec<(PolicyName, Per)>,
    /// `None` if the events go elsewhere.
    pub(super) verifier: Option<Verifier>,
    /// The routes and the policies, for the page.
    rules: Value,
}

/// The result of a check, or of a change.
pub(super) struct Checked {
    text: String,
    faults: Vec<Value>,
    warnings: Vec<Value>,
    is_applied: bool,
}

impl Config {
    pub(crate) fn new(
        file: String,
        source: TextSource,
        load: Load,
        (text, settings): (String, &Settings),
        now: Timestamp,
    ) -> Self {
        Self {
            file,
            source,
            load,
            fixed: settings.fixed.clone(),
            address: OnceLock::new(),
            in_force: Mutex::new(InForce::new(text, settings, Vec::new(), now)),
        }
    }

    pub(super) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock()
    }

    pub(super) fn describe(&self) -> Value {
        let in_force = self.in_force();
        let (default, on_disk) = match &self.source {
            TextSource::BuiltIn(text) => (Some(text), None),
            TextSource::Own(file) => (None, file.as_ref()),
        };
        let has_changed = on_disk.is_some_and(|path| {
            let text = std::fs::read_to_string(path);
            text.ok().as_ref() != Some(&in_force.text)
        });
        json!({
            "file": self.file,
            "text": in_force.text,
            "since": in_force.since,
            "waiting": in_force.waiting,
            "default": default,
            "isFile": on_disk.is_some(),
            "hasChangedOnDisk": has_changed,
        })
    }

    pub(super) fn rules(&self) -> Value {
        self.in_force().rules.clone()
    }

    /// Whether the sandbox itself receives the events.
    pub(super) fn receives_events(&self) -> bool {
        self.in_force().verifier.is_some()
    }

    /// Checks a text of the page, or the user's file, and applies it if `reloader` is there.
    pub(super) fn change(
        &self,
        text: Option<String>,
        reloader: Option<&Reloader>,
        now: Timestamp,
    ) -> io::Result<Checked> {
        let text = match (&self.source, text) {
            (TextSource::BuiltIn(_), Some(text)) => text,
            (TextSource::BuiltIn(text), None) => (*text).to_owned(),
            (TextSource::Own(Some(path)), _) => std::fs::read_to_string(path)?,
            (TextSource::Own(None), _) => self.in_force().text.clone(),
        };
        // Held until the config is in force, so that what the page shows is what was applied last.
        let mut in_force = self.in_force();
        let mut checked = Checked {
            text,
            faults: Vec::new(),
            warnings: Vec::new(),
            is_applied: false,
        };
        let mut settings = match (self.load)(&checked.text) {
            Ok(settings) => settings,
            Err(faults) => {
                checked.faults = self.positions(&faults);
                return Ok(checked);
            }
        };
        checked.warnings = self.positions(&settings.warnings);
        let Some(reloader) = reloader else {
            return Ok(checked);
        };
        let waiting = self.fixed.changed(&settings.fixed);
        let applied = InForce::new(checked.text.clone(), &settings, waiting, now);
        if let Some(address) = self.address.get() {
            point_events_at(&mut settings, *address);
        }
        match reloader.reload(Ok(settings)) {
            Ok(()) => {
                *in_force = applied;
                checked.is_applied = true;
            }
            Err(error) => checked.faults = vec![json!({ "text": error.to_string() })],
        }
        Ok(checked)
    }

    /// Errors with their lines: `file:line:column: key: message`.
    fn positions(&self, faults: &Faults) -> Vec<Value> {
        let describe = |text: &String| {
            let rest = text.strip_prefix(&self.file)?.strip_prefix(':')?;
            let (line, rest) = rest.split_once(':')?;
            let (_column, text) = rest.split_once(": ")?;
            let line: u32 = line.parse().ok()?;
            Some(json!({ "line": line, "text": text }))
        };
        let faults = faults.lines().iter();
        faults
            .map(|text| describe(text).unwrap_or_else(|| json!({ "text": text })))
            .collect()
    }
}

impl Checked {
    pub(super) fn describe(&self) -> Value {
        json!({
            "text": self.text,
            "faults": self.faults,
            "warnings": self.warnings,
            "applied": self.is_applied,
        })
    }
}

impl InForce {
    fn new(text: String, settings: &Settings, waiting: Vec<String>, since: Timestamp) -> Self {
        let per = |(name, policy): &(PolicyName, _)| {
            let policy: &crate::server::settings::PolicySettings = policy;
            Some((name.clone(), policy.requirements.per.clone()?))
        };
        let document: toml::Table = toml::from_str(&text).unwrap_or_default();
        Self {
            counted_by: settings.policies.iter().filter_map(per).collect(),
            verifier: Verifier::of(settings),
            rules: rules(settings, &document),
            text,
            since,
            waiting,
        }
    }
}

/// The routes, each with its policies as the file has them.
fn rules(settings: &Settings, document: &toml::Table) -> Value {
    let policies = document.get("policies").and_then(toml::Value::as_table);
    let policy = |name: &PolicyName| {
        let table = policies.and_then(|policies| policies.get(name.as_str()));
        let period = table.and_then(|table| table.get("period")).cloned();
        let period = period.and_then(|period| Interval::deserialize(period).ok());
        let period =
            period.map(|period| u64::try_from(period.get().as_millis()).unwrap_or(u64::MAX));
        json!({ "name": name, "settings": table, "periodMilliseconds": period })
    };
    let routes = settings.routes.iter().map(|route| {
        let flow = match route.action {
            RouteAction::Token => "token",
            RouteAction::Upload => "upload",
        };
        json!({
            "path": route.path,
            "flow": flow,
            "purpose": route.purpose,
            "policies": route.policies.iter().map(policy).collect::<Vec<_>>(),
            "credential": credential(settings, route),
        })
    });
    json!({ "routes": routes.collect::<Vec<_>>() })
}
