//! `[events]`: what happened to uploads, sent to the app.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use policies::Interval;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;

use super::{
    document::Reader,
    secret::{self, Environment, SecretSources},
    service_url::ServiceUrl,
};

/// `[events]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsSettings {
    /// The URL of your app to which the gate POSTs events. It must be https, or http on this machine, unless
    /// `insecure_http` is set.
    #[schemars(extend("examples" = ["https://app.example.com/hooks/uploads"]))]
    pub url: ServiceUrl,
    /// The secret that signs events: `whsec_` and 24 to 64 bytes in base64. With several secrets, an event has one
    /// signature for each, so that your app can change from one to the next.
    pub secret: SecretSources,
    /// How long the gate tries to deliver an event before it drops it. Default: `"7d"`.
    #[serde(default = "default_keep")]
    pub keep: Interval,
    /// Allow a `url` with plain http on another machine. Default: `false`.
    #[serde(default)]
    pub insecure_http: bool,
}

/// The default of [`EventsSettings::keep`].
#[must_use]
pub fn default_keep() -> Interval {
    Interval::from_secs(7 * 24 * 60 * 60)
}

/// The keys that sign events.
#[derive(Clone, Debug)]
pub struct EventKeys(pub Vec<SecretSlice<u8>>);

const URL: &str = "events.url";

const SECRET: &str = "events.secret";

impl EventsSettings {
    pub(crate) fn check(&self, reader: &mut Reader) {
        if !self.insecure_http && !self.url.is_private() {
            let message = "would send events over plain http to another machine; write https, or allow it with `insecure_http = true`";
            reader.fault(URL, message);
        }
    }

    pub(crate) fn load_keys(
        &self,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) -> Option<EventKeys> {
        let sources = self.secret.as_slice();
        let mut keys = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let path = match self.secret {
                SecretSources::One(_) => SECRET.to_owned(),
                SecretSources::Many(_) => format!("{SECRET}[{index}]"),
            };
            let Some(text) = secret::read(reader, environment, &path, source, 1) else {
                continue;
            };
            match key(text.expose_secret()) {
                Ok(key) => keys.push(key),
                Err(message) => reader.fault(path, message),
            }
        }
        (keys.len() == sources.len()).then_some(EventKeys(keys))
    }
}

/// What the Standard Webhooks specification asks of a secret.
const PREFIX: &str = "whsec_";
const MIN_BYTES: usize = 24;
const MAX_BYTES: usize = 64;

/// Decodes a secret. Errors do not show it.
fn key(text: &str) -> Result<SecretSlice<u8>, String> {
    const CREATE: &str = "create one with `echo \"whsec_$(openssl rand -base64 32)\"`";

    let Some(encoded) = text.strip_prefix(PREFIX) else {
        return Err(format!("must begin with `{PREFIX}`; {CREATE}"));
    };
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| format!("is not base64 after `{PREFIX}`; {CREATE}"))?;
    if (MIN_BYTES..=MAX_BYTES).contains(&bytes.len()) {
        Ok(bytes.into())
    } else {
        let length = bytes.len();
        Err(format!(
            "must have {MIN_BYTES} to {MAX_BYTES} bytes in base64 after `{PREFIX}`, and has {length}; {CREATE}"
        ))
    }
}
