//! What a config from the playground page may name. The sandbox applies such a config, which must not give access to
//! the secrets, files and networks of this machine.

use toml::de::{DeTable, DeValue};
use url::Url;

use crate::config::{
    Faults,
    document::{Reader, Value, join},
};

/// Keys whose values are names or text, even if they look like addresses or sources of secrets.
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

pub(crate) struct Confines<'a> {
    /// The environment variables, which the sandbox provides.
    pub(crate) variables: &'a [&'a str],
    pub(crate) host: &'a Url,
    /// The sandbox's own config, whose stores and base URL are replaced.
    pub(crate) own: &'a str,
}

/// Checks that a config names nothing outside `confines`.
pub(crate) fn check(file: &str, text: &str, confines: &Confines<'_>) -> Result<(), Faults> {
    let mut reader = Reader::default();
    let document = reader.parse(text);
    let own = Reader::default().parse(confines.own);
    let mut walk = Walk {
        reader: &mut reader,
        confines,
        own_base_url: own
            .get("imgwire")
            .and_then(|imgwire| text_of(imgwire, "base_url")),
    };
    walk.table("", &document);
    if let Some(stores) = document.get("stores") {
        walk.stores(stores, own.get("stores"));
    }
    if document.contains_key("outbound") {
        let message = "the sandbox connects to no other service, so it has no [outbound]";
        reader.fault("outbound", message);
    }
    if reader.faults.is_empty() {
        Ok(())
    } else {
        Err(Faults::new(file, text, reader.faults))
    }
}

struct Walk<'a> {
    reader: &'a mut Reader,
    confines: &'a Confines<'a>,
    own_base_url: Option<&'a str>,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        let is_fetched = table.contains_key("discovery");
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
                // An issuer is only compared, unless its keys are discovered.
                _ if NAMES.contains(&key) && !(key == "issuer" && is_fetched) => {
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
                    let message = "the sandbox replaces nothing from the environment";
                    self.reader.fault(path, message);
                } else if may_be_host
                    && !(path == "imgwire.base_url" && self.own_base_url == Some(&**text))
                    && !self.may_connect(text)
                {
                    let host = self.confines.host.as_str();
                    let message = format!("the sandbox connects to its emulator only: {host}");
                    self.reader.fault(path, message);
                }
            }
            _ => {}
        }
    }

    fn variable(&mut self, path: &str, name: &str) {
        let variables = self.confines.variables;
        if !variables.contains(&name) {
            let known = variables.join("`, `");
            let message =
                format!("the sandbox passes no environment on; its own variables are `{known}`");
            self.reader.fault(path, message);
        }
    }

    /// Whether the text is the emulator's URL, or not a URL with a host.
    fn may_connect(&self, text: &str) -> bool {
        // `{workspace}` and `{user}` in a URL are replaced by what a client sends.
        let url = Url::parse(&text.replace(['{', '}'], ""));
        match url {
            Ok(url) if url.has_host() => url.origin() == self.confines.host.origin(),
            Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => true,
            // Rejects what this parser cannot read: another one might read a host in it.
            Err(_) => false,
        }
    }

    /// A store must be one of the sandbox's own, at the same place.
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
                    Some(url) => format!("the sandbox has this store at \"{url}\" only"),
                    None => "the sandbox has the stores of its own config only".to_owned(),
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
