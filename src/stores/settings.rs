//! `[stores.<name>]`

use std::{fmt, path::Path, sync::Arc};

use policies::{Interval, SecretSource, StoreName, StoreUse};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    file_id::FilePlace,
    kind::{Location, SentinelLogin, StoreKind},
    postgres,
    prefix::KeyPrefix,
    redis, sqlite,
    tls::TlsSettings,
};
use crate::outbound::TlsMaterial;

static KINDS: &[StoreKind] = &[sqlite::KIND, postgres::KIND, redis::KIND];

/// `[stores.<name>]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// What it is: `sqlite:` and the path of a file, `postgres://user@host/database`, or `redis://user@host/0`
    /// (`rediss://` by TLS, `redis+sentinel://`, `redis+cluster://`). Or the place of a secret that is such a URL, which
    /// may contain a password.
    pub url: UrlSource,
    /// The password of a server.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// The user at the Sentinels. The user in `url` is the one at the server.
    #[serde(default)]
    pub sentinel_user: Option<String>,
    /// The password at the Sentinels.
    #[serde(default)]
    pub sentinel_password: Option<SecretSource>,
    /// What every key in Redis begins with, before a `:`. The default is `imgwire-gate`.
    #[serde(default)]
    pub prefix: Option<KeyPrefix>,
    /// Certificates for TLS. Default: the system's authorities and those of `[outbound] ca`, and no client certificate.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// How long one operation may take. Default: `"2s"`.
    #[serde(default = "default_timeout")]
    pub timeout: Interval,
}

fn default_timeout() -> Interval {
    Interval::from_secs(2)
}

/// A URL, or the place of a secret that is one.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
#[schemars(extend("examples" = ["sqlite:data/gate.db"]))]
pub enum UrlSource {
    /// The URL, without a password.
    Text(#[schemars(with = "String")] StoreUrl),
    /// A secret that is the URL, and may contain a password.
    Secret(SecretSource),
}

impl<'de> Deserialize<'de> for UrlSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UrlVisitor;

        impl<'de> Visitor<'de> for UrlVisitor {
            type Value = UrlSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, { env = \"NAME\" } or { file = \"PATH\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<UrlSource, E> {
                let url = StoreUrl::parse(text).map_err(E::custom)?;
                if url.has_password() {
                    return Err(E::custom(
                        "must not contain a password; write password = { env = \"NAME\" }, or let \
                         url = { env = \"NAME\" } name the whole URL",
                    ));
                }
                Ok(UrlSource::Text(url))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UrlSource, A::Error> {
                SecretSource::deserialize(MapAccessDeserializer::new(map)).map(UrlSource::Secret)
            }
        }

        deserializer.deserialize_any(UrlVisitor)
    }
}

/// A store of the config with its secrets and certificates.
#[derive(Clone, Debug)]
pub struct Store {
    pub url: StoreUrl,
    pub settings: StoreSettings,
}

/// A store of the config, and what policies and the session use it for.
pub struct UsedStore<'a>(pub &'a StoreName, pub &'a Store, pub Vec<StoreUse>);

/// The kind of a store, where it is, and how to sign in.
#[derive(Clone)]
pub struct StoreUrl {
    pub(super) kind: &'static StoreKind,
    pub(super) location: Arc<dyn Location>,
    pub(super) password: Option<SecretString>,
    pub(super) sentinel: Option<SentinelLogin>,
    pub(super) tls: TlsMaterial,
    /// The URL, the password and the certificates. Equal stores have equal identities.
    identity: SecretString,
}

impl StoreUrl {
    pub(crate) fn file(path: &Path) -> Self {
        Self {
            kind: &sqlite::KIND,
            location: sqlite::at(path),
            password: None,
            sentinel: None,
            tls: TlsMaterial::default(),
            identity: path.display().to_string().into(),
        }
    }

    /// Which file it is, if it is one.
    pub(crate) fn file_place(&self) -> Option<FilePlace> {
        self.location.file().map(FilePlace::of)
    }

    /// Returns a message if this kind of store does not support `wanted`.
    pub(crate) fn unsupported(&self, wanted: StoreUse) -> Option<String> {
        if self.kind.uses.contains(&wanted) {
            return None;
        }
        let (what, otherwise) = match wanted {
            StoreUse::Quotas => ("count quotas", ""),
            StoreUse::RateLimits => (
                "count rate limits",
                ", or leave `store` out to count in memory",
            ),
            StoreUse::Sessions => ("keep sessions", ", or write store = \"cookie\""),
            StoreUse::Memberships => ("look up memberships", ""),
            StoreUse::Uploads => ("keep records of uploads", ""),
        };
        let able = KINDS.iter().filter(|kind| kind.uses.contains(&wanted));
        let able: Vec<_> = able.map(|kind| kind.name).collect();
        let (name, able) = (self.kind.name, able.join(" or "));
        Some(format!("{name} cannot {what}; use {able}{otherwise}"))
    }

    /// Fails if there are no Sentinels.
    pub(crate) fn set_sentinel_login(
        &mut self,
        user: Option<&str>,
        password: &SecretString,
    ) -> Result<(), String> {
        self.require_sentinels()?;
        let (user_text, secret) = (user.unwrap_or_default(), password.expose_secret());
        self.identify_by(&format!("sentinel {user_text} {secret}"));
        self.sentinel = Some(SentinelLogin {
            user: user.map(str::to_owned),
            password: password.clone(),
        });
        Ok(())
    }

    /// Fails if there are no Sentinels.
    pub(crate) fn require_sentinels(&self) -> Result<(), String> {
        if self.location.has_sentinels() {
            return Ok(());
        }
        Err("`url` names no Sentinels; leave it out, or write a URL that begins with `redis+sentinel://`".to_owned())
    }

    /// Fails if this kind of store has no keys.
    pub(crate) fn set_prefix(&mut self, prefix: &KeyPrefix) -> Result<(), String> {
        if !self.kind.takes_prefix {
            return Err(format!(
                "{} has no keys that could have a prefix; leave it out",
                self.kind.name
            ));
        }
        self.identify_by(&format!("{}:", prefix.as_str()));
        Ok(())
    }

    /// Fails if this kind of store has no password, or the URL already has one.
    pub(crate) fn set_password(&mut self, password: &SecretString) -> Result<(), String> {
        if !self.kind.takes_password {
            return Err(format!("{} has no password", self.kind.name));
        }
        if self.has_password() {
            return Err("the URL already contains a password; remove one of the two".to_owned());
        }
        self.identify_by(password.expose_secret());
        self.password = Some(password.clone());
        Ok(())
    }

    /// The certificates that the URL names, or why the store cannot have any.
    pub(crate) fn tls(&self) -> Result<TlsSettings, String> {
        self.location.tls()
    }

    /// `texts` are what the material was made of.
    pub(crate) fn set_tls(&mut self, material: TlsMaterial, texts: &[&str]) -> Result<(), String> {
        self.location.check_tls(&material)?;
        for text in texts {
            self.identify_by(text);
        }
        self.tls = material;
        Ok(())
    }

    fn identify_by(&mut self, text: &str) {
        let identity = self.identity.expose_secret();
        self.identity = format!("{identity} {text}").into();
    }

    fn has_password(&self) -> bool {
        self.location.has_password()
    }

    /// No message shows the text, which may contain a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        for kind in KINDS {
            if let Some(location) = (kind.parse)(text) {
                return Ok(Self {
                    kind,
                    location: location?,
                    password: None,
                    sentinel: None,
                    tls: TlsMaterial::default(),
                    // `sqlite://gate.db` is `sqlite:gate.db`.
                    identity: text.replacen("://", ":", 1).into(),
                });
            }
        }
        let examples: Vec<_> = KINDS.iter().map(|kind| kind.example).collect();
        let examples = examples.join("\" or \"");
        let is_scheme = |char: char| char.is_ascii_alphanumeric() || "+.-".contains(char);
        let scheme = text.split("://").next().unwrap_or_default();
        let kind = match scheme.len() < text.len() && scheme.chars().all(is_scheme) {
            true => format!("unknown kind of store `{scheme}`"),
            false => "unknown kind of store".to_owned(),
        };
        Err(format!("{kind}; write for example \"{examples}\""))
    }
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.identity.expose_secret() == other.identity.expose_secret()
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUrl").field(&self.kind.name).finish()
    }
}
