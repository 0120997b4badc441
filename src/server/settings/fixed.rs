//! The settings that take effect only at start.

use toml::{Table, Value};

/// The sections that take effect only at start.
pub(super) const FIXED_SECTIONS: [&str; 6] = [
    "server",
    "management",
    "telemetry",
    "imgwire",
    "outbound",
    "session",
];

/// The sections that a reload replaces.
pub(super) const RELOADED_SECTIONS: [&str; 6] = [
    "stores",
    "identities",
    "policies",
    "routes",
    "events",
    "uploads",
];

/// The keys of the fixed sections that a reload replaces nevertheless.
const RELOADED_KEYS: [(&str, &str); 8] = [
    ("imgwire", "api_key"),
    ("imgwire", "client_key"),
    ("imgwire", "audit"),
    ("management", "token"),
    ("management", "hosts"),
    ("outbound", "ca"),
    ("session", "key"),
    ("session", "previous_keys"),
];

/// The settings that take effect only at start, as the config has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fixed(Table);

impl Fixed {
    pub(super) fn new(mut document: Table) -> Self {
        document.retain(|section, _| FIXED_SECTIONS.contains(&section));
        for (section, key) in RELOADED_KEYS {
            if let Some(table) = document.get_mut(section).and_then(Value::as_table_mut) {
                table.remove(key);
            }
        }
        Self(document)
    }

    /// The keys that differ, for example `server.bind`.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        // An empty section is as good as none, except for this one.
        if self.0.contains_key("session") != other.0.contains_key("session") {
            changed.push("session".to_owned());
        }
        compare("", &self.0, &other.0, &mut changed);
        changed.sort();
        changed.dedup();
        changed
    }
}

fn compare(path: &str, one: &Table, other: &Table, changed: &mut Vec<String>) {
    for key in one.keys().chain(other.keys()) {
        let path = match path {
            "" => key.clone(),
            _ => format!("{path}.{key}"),
        };
        let (one, other) = (one.get(key), other.get(key));
        let empty = Table::new();
        let table = |value: Option<&Value>| match value {
            None => Some(empty.clone()),
            Some(value) => value.as_table().cloned(),
        };
        match (table(one), table(other)) {
            (Some(one), Some(other)) => compare(&path, &one, &other, changed),
            _ if one != other => changed.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(one: &str, other: &str) -> Vec<String> {
        let fixed = |text: &str| Fixed::new(text.parse().unwrap());
        fixed(one).changed(&fixed(other))
    }

    #[test]
    fn the_keys_that_differ_are_named() {
        for (one, other, expected) in [
            ("", "", &[][..]),
            ("server.bind = 'a'", "server.bind = 'b'", &["server.bind"]),
            (
                "",
                "server = { workers = 1, failures = { limit = 1 } }",
                &["server.failures.limit", "server.workers"],
            ),
            (
                "imgwire = { api_key = { env = 'A' } }",
                "imgwire = { api_key = { file = 'b' } }",
                &[],
            ),
            ("management.token = { env = 'A' }", "", &[]),
            (
                "session.key = { env = 'A' }",
                "session.key = { env = 'B' }",
                &[],
            ),
            ("session.key = { env = 'A' }", "", &["session"]),
            ("policies.a.kind = 'b'", "", &[]),
            (
                "server.trusted_proxies = []",
                "server.trusted_proxies = ['::1']",
                &["server.trusted_proxies"],
            ),
        ] {
            assert_eq!(changed(one, other), expected, "{one} / {other}");
        }
    }
}
