//! The config in force, and how the page changes it.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use policies::{Interval, Per, PolicyName};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::credential::credential;
use crate::{
    config::{ConfigSource, Faults},
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
    /// user's own is not.
    Own(ConfigSource),
}

/// The config of the sandbox.
pub(crate) struct Config {
    /// The name in errors.
    file: String,
    source: TextSource,
    load: Load,
    /// The sections that took effect at start.
    fixed: Fixed,
    in_force: Mutex<InForce>,
}

pub(super) struct InForce {
    text: String,
    since: Timestamp,
    /// The changed sections that take effect only after a restart.
    waiting: Vec<String>,
    /// What the policies that count count by.
    pub(super) counted_by: Vec<(PolicyName, Per)>,
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
            TextSource::Own(source) => (None, source.file()),
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
            (TextSource::Own(source), _) => match source.file() {
                Some(path) => std::fs::read_to_string(path)?,
                // Standard input is read only once.
                None => self.in_force().text.clone(),
            },
        };
        // Held until the config is in force, so that what the page shows is what was applied last.
        let mut in_force = self.in_force();
        let mut checked = Checked {
            text,
            faults: Vec::new(),
            warnings: Vec::new(),
            is_applied: false,
        };
        let settings = match (self.load)(&checked.text) {
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
            rules: rules(settings, &document),
            text,
            since,
            waiting,
        }
    }
}

/// The routes, each with its policies as the file has them: those for tokens, or all if there are none.
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
    let issue_tokens = settings.routes_of(RouteAction::Token).next().is_some();
    let routes = settings.routes.iter();
    let routes = routes.filter(|route| !issue_tokens || route.action == RouteAction::Token);
    let routes = routes.map(|route| {
        json!({
            "path": route.path,
            "purpose": route.purpose,
            "policies": route.policies.iter().map(policy).collect::<Vec<_>>(),
            "credential": credential(settings, route),
        })
    });
    let identities = settings.identities.iter();
    let identities: BTreeMap<_, _> = identities
        .map(|(name, _)| {
            let section = document
                .get("identities")
                .and_then(|all| all.get(name.as_str()));
            let kind = section.and_then(|section| section.get("kind")).cloned();
            (name.as_str(), kind)
        })
        .collect();
    json!({ "routes": routes.collect::<Vec<_>>(), "identities": identities })
}
