//! Checks configs from the playground page. The sandbox applies them, so they must not give access to the secrets,
//! files and networks of this machine.

use toml::de::{DeTable, DeValue};
use url::Url;

use crate::config::{
    Faults,
    document::{Reader, Value, join},
};

/// Keys whose values are never hosts or sources of secrets, even if they look like it.
const NAMES: [&str; 12] = [
    "allow",
    "allowed_claims",
    "allowed_origins",
    "audience",
    "claims",
    "issuer",
    "members",
    "message",
    "public_origin",
    "required_claims",
    "values",
    "when",
];

/// The keys of URLs that the sandbox replaces: section and name.
const REPLACED: [(&str, &str); 2] = [("imgwire", "base_url"), ("events", "url")];

/// What a config from the page may name.
pub(crate) struct Allowed<'a> {
    /// The variables that the sandbox provides.
    pub(crate) variables: &'a [&'a str],
    pub(crate) host: &'a Url,
    /// The sandbox's own config. Its stores and the URLs of `REPLACED` may be named, because the sandbox replaces them.
    pub(crate) config: &'a str,
}

/// Checks that a config names nothing that is not `allowed`.
pub(crate) fn check(file: &str, text: &str, allowed: &Allowed<'_>) -> Result<(), Faults> {
    let mut reader = Reader::default();
    let document = reader.parse(text);
    let own = Reader::default().parse(allowed.config);
    let replaced = REPLACED.iter().filter_map(|(section, key)| {
        let url = text_of(own.get(*section)?, key)?;
        Some((join(section, key), url))
    });
    let mut walk = Walk {
        reader: &mut reader,
        allowed,
        replaced: replaced.collect(),
    };
    walk.table("", &document);
    if let Some(stores) = document.get("stores") {
        walk.stores(stores, own.get("stores"));
    }
    if document.contains_key("outbound") {
        let message = "the sandbox connects to no other service; remove [outbound]";
        reader.fault("outbound", message);
    }
    if reader.faults.is_empty() {
        Ok(())
    } else {
        Err(reader.into_faults(file, text))
    }
}

struct Walk<'a> {
    reader: &'a mut Reader,
    allowed: &'a Allowed<'a>,
    /// The URLs that the sandbox replaces, by their paths.
    replaced: Vec<(String, &'a str)>,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        let has_discovery = table.contains_key("discovery");
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            let path = join(path, key);
            match (key, value.get_ref()) {
                ("file", DeValue::String(_)) => {
                    let message = "the sandbox reads no files";
                    self.reader.fault(path, message);
                }
                ("env", DeValue::String(name)) => self.variable(&path, name),
                ("stores", _) if path == "stores" => {}
                // The gate connects to an issuer only to discover its keys.
                _ if NAMES.contains(&key) && !(key == "issuer" && has_discovery) => {
                    self.value(&path, value, false);
                }
                _ => self.value(&path, value, true),
            }
        }
    }

    fn value(&mut self, path: &str, value: &Value<'_>, may_be_host: bool) {
        match value.get_ref() {
            DeValue::Table(table) if may_be_host => self.table(path, table),
            DeValue::Table(table) => {
                for value in table.values() {
                    self.value(path, value, false);
                }
            }
            DeValue::Array(values) => {
                for value in values {
                    self.value(path, value, may_be_host);
                }
            }
            DeValue::String(text) => {
                if text.replace("$${", "").contains("${") {
                    let message = "the sandbox does not replace environment variables";
                    self.reader.fault(path, message);
                } else if may_be_host && !self.is_replaced(path, text) && !self.may_connect(text) {
                    let host = self.allowed.host.as_str();
                    let message = format!("the sandbox connects only to its emulator: {host}");
                    self.reader.fault(path, message);
                }
            }
            _ => {}
        }
    }

    fn variable(&mut self, path: &str, name: &str) {
        let variables = self.allowed.variables;
        if !variables.contains(&name) {
            let known = variables.join("`, `");
            let message = format!("the sandbox reads no environment variables except `{known}`");
            self.reader.fault(path, message);
        }
    }

    fn is_replaced(&self, path: &str, text: &str) -> bool {
        let mut replaced = self.replaced.iter();
        replaced.any(|(key, url)| key == path && *url == text)
    }

    /// Whether the text is the emulator's URL, or not a URL with a host.
    fn may_connect(&self, text: &str) -> bool {
        // Clients choose the values of `{workspace}` and `{user}` in a URL.
        let url = Url::parse(&text.replace(['{', '}'], ""));
        match url {
            Ok(url) if url.has_host() => url.origin() == self.allowed.host.origin(),
            Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => true,
            // Another parser might find a host in text that this one rejects.
            Err(_) => false,
        }
    }

    /// A store must be one of the sandbox's own, with the same URL.
    fn stores(&mut self, stores: &Value<'_>, own: Option<&Value<'_>>) {
        let own = own.and_then(|own| own.get_ref().as_table());
        let Some(stores) = stores.get_ref().as_table() else {
            return;
        };
        for (name, store) in stores {
            let own = own.and_then(|own| own.get(&**name.get_ref()));
            let own_url = own.and_then(|own| text_of(own, "url"));
            let path = join("stores", name.get_ref());
            if own_url.is_none() || own_url != text_of(store, "url") {
                let message = match own_url {
                    Some(url) => format!("the sandbox has this store only at \"{url}\""),
                    None => "the sandbox has only the stores of its own config".to_owned(),
                };
                self.reader.fault(path.clone(), message);
            }
            if let DeValue::Table(table) = store.get_ref() {
                self.table(&path, table);
            }
        }
    }
}

fn text_of<'a>(table: &'a Value<'_>, key: &str) -> Option<&'a str> {
    table.get_ref().as_table()?.get(key)?.get_ref().as_str()
}
