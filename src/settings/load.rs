//! Reads a config file into [`Settings`].

use policies::settings::{Common, Kind, OnFailure};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Environment, Faults, Fixed, ImgwireSettings, Kinds, ManagementSettings, PolicyKinds, Route,
    SessionSettings, Settings, StoreSettings, check,
    document::{Reader, Value, join},
    outbound::OutboundSettings,
    ready::{api_key, authorities, secret, session_keys, with_password},
    routes::RouteSettings,
    warnings,
};
use crate::identities::{ConfiguredIdentities, SectionFacts};

const MANAGEMENT_TOKEN_BYTES: usize = 16;
const SECTIONS: [&str; 10] = [
    "server",
    "management",
    "telemetry",
    "imgwire",
    "outbound",
    "session",
    "stores",
    "identities",
    "policies",
    "routes",
];

/// A named entry of a section: the place of its name, the name, and what could be read of it.
pub(super) struct Named<N, T> {
    pub(super) place: std::ops::Range<usize>,
    pub(super) name: N,
    pub(super) entry: Option<T>,
}

/// Reads a config file: `text` is what is in it, `file` its name for the faults.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn load(file: &str, text: &str, environment: Environment<'_>) -> Result<Settings, Faults> {
    load_with(&Kinds::default(), file, text, environment)
}

/// The same, where policies and identities may be of `kinds`.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub fn load_with(
    kinds: &Kinds,
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<Settings, Faults> {
    let mut reader = Reader::default();
    let mut document = reader.parse(text);
    let settings = if reader.faults.is_empty() {
        let fixed = toml::from_str(text).map(Fixed::new).unwrap_or_default();
        read(&mut reader, &mut document, kinds, environment, fixed)
    } else {
        None
    };
    match settings {
        Some(settings) if reader.faults.is_empty() => {
            warnings::of_memberships(&mut reader, &settings);
            Ok(Settings {
                warnings: Faults::new(file, text, reader.warnings),
                ..settings
            })
        }
        _ => Err(Faults::new(file, text, reader.faults)),
    }
}

fn read(
    reader: &mut Reader,
    document: &mut DeTable<'_>,
    kinds: &Kinds,
    environment: Environment<'_>,
    fixed: Fixed,
) -> Option<Settings> {
    for key in document.keys() {
        if !SECTIONS.contains(&key.get_ref().as_ref()) {
            let known = SECTIONS.join("`, `");
            reader.fault(
                key.get_ref().as_ref(),
                format!("is no section; there are `{known}`"),
            );
        }
    }

    let server = section(reader, document, "server").unwrap_or_else(|| Some(Default::default()));
    let management: Option<ManagementSettings> =
        section(reader, document, "management").unwrap_or_else(|| Some(Default::default()));
    let telemetry =
        section(reader, document, "telemetry").unwrap_or_else(|| Some(Default::default()));
    let imgwire: Option<ImgwireSettings> =
        section(reader, document, "imgwire").unwrap_or_else(|| {
            reader.fault("imgwire.api_key", "is required");
            None
        });
    let outbound: Option<OutboundSettings> =
        section(reader, document, "outbound").unwrap_or_else(|| Some(Default::default()));
    let session: Option<Option<SessionSettings>> = section(reader, document, "session");
    let stores = named(reader, document, "stores", |reader, path, value| {
        let store: StoreSettings = reader.table(path, value)?;
        with_password(reader, path, store, environment)
    });
    let identities = named(reader, document, "identities", |reader, path, mut value| {
        let kind = kind(reader, path, &mut value)?;
        kinds.identities.read(&kind, reader, path, value)
    });
    let identities = identities.into_iter();
    let identities: ConfiguredIdentities = identities
        .map(|identity| (identity.name, identity.entry))
        .collect();
    let policies = named(reader, document, "policies", |reader, path, value| {
        policy(reader, &kinds.policies, path, value)
    });
    let routes = routes(reader, document);

    let profiles = identities.profiles();
    if let Some(Some(session)) = &session {
        check::session(reader, session, &stores, &profiles);
    }
    let facts = SectionFacts {
        server: server.as_ref(),
        has_session: session.is_some(),
        environment,
    };
    let resolved_identities = identities.resolve(reader, facts);
    check::references(
        reader,
        server.as_ref(),
        &stores,
        &profiles,
        &policies,
        &routes,
    );

    let api_key = imgwire
        .as_ref()
        .and_then(|imgwire| api_key(reader, imgwire, environment));
    let session = match session {
        None => Some(None),
        Some(session) => session.and_then(|session| {
            let keys = session_keys(reader, &session, environment)?;
            Some(Some((session, keys)))
        }),
    };
    let management_token = management
        .as_ref()
        .and_then(|management| match &management.token {
            None => Some(None),
            Some(source) => {
                let key = "management.token";
                secret(reader, key, source, environment, MANAGEMENT_TOKEN_BYTES).map(Some)
            }
        });
    let authorities = outbound.and_then(|outbound| authorities(reader, &outbound));
    let policy_tokens: Vec<_> = policies
        .iter()
        .filter_map(|policy| {
            let source = policy.entry.as_ref()?.1.token()?;
            let key = format!("policies.{}.token", policy.name);
            let token = secret(reader, &key, source, environment, 1);
            Some(token.map(|token| (policy.name.clone(), token)))
        })
        .collect();

    Some(Settings {
        fixed,
        server: server?,
        management: management?,
        telemetry: telemetry?,
        imgwire: imgwire?,
        api_key: api_key?,
        management_token: management_token?,
        authorities: authorities?,
        session: session?,
        stores: stores
            .into_iter()
            .map(|store| Some((store.name, store.entry?)))
            .collect::<Option<_>>()?,
        identities: resolved_identities?,
        policies: policies
            .into_iter()
            .map(|policy| {
                let (common, kind) = policy.entry?;
                Some((policy.name, common, kind))
            })
            .collect::<Option<_>>()?,
        policy_tokens: policy_tokens.into_iter().collect::<Option<_>>()?,
        routes: routes
            .into_iter()
            .map(|route| {
                let policies = route.policies.into_iter();
                Route {
                    path: route.path,
                    purpose: route.purpose,
                    policies: policies.collect(),
                }
            })
            .collect(),
        warnings: Faults::default(),
    })
}

/// Reads a section that is one table: `None` when there is none.
fn section<T: DeserializeOwned + JsonSchema>(
    reader: &mut Reader,
    document: &mut DeTable<'_>,
    name: &str,
) -> Option<Option<T>> {
    let value = document.remove(name)?;
    Some(reader.table(name, value))
}

/// Reads a section of named tables.
fn named<'t, N, T>(
    reader: &mut Reader,
    document: &mut DeTable<'t>,
    section: &str,
    read: impl Fn(&mut Reader, &str, Value<'t>) -> Option<T>,
) -> Vec<Named<N, T>>
where
    N: TryFrom<String, Error: std::fmt::Display>,
{
    let Some(value) = document.remove(section) else {
        return Vec::new();
    };
    let DeValue::Table(tables) = value.into_inner() else {
        reader.fault(section, "must be tables, each with a name");
        return Vec::new();
    };
    let mut entries: Vec<_> = tables
        .into_iter()
        .filter_map(|(key, value)| {
            let path = join(section, key.get_ref());
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !key.get_ref().bytes().all(allowed) {
                let message = "the name must consist of letters, digits and any of -_.";
                reader.fault(path, message);
                return None;
            }
            match N::try_from(key.get_ref().to_string()) {
                Ok(name) => Some(Named {
                    place: key.span(),
                    name,
                    entry: read(reader, &path, value),
                }),
                Err(fault) => {
                    reader.fault(path, format!("the name {fault}"));
                    None
                }
            }
        })
        .collect();
    // The order of the file, where it says one thing before another.
    entries.sort_by_key(|entry| entry.place.start);
    entries
}

/// Takes `kind` out of a table.
fn kind<'t>(reader: &mut Reader, path: &str, value: &mut Value<'t>) -> Option<String> {
    let DeValue::Table(table) = value.get_mut() else {
        reader.fault(path, "must be a table");
        return None;
    };
    let Some(kind) = table.remove("kind") else {
        reader.fault(join(path, "kind"), "is required");
        return None;
    };
    match kind.get_ref().as_str() {
        Some(name) => Some(name.to_owned()),
        None => {
            reader.fault(join(path, "kind"), "must be a string");
            None
        }
    }
}

fn policy(
    reader: &mut Reader,
    kinds: &PolicyKinds,
    path: &str,
    mut value: Value<'_>,
) -> Option<(Common, Kind)> {
    let kind = kind(reader, path, &mut value)?;
    let name = kind.as_str();
    let common = shared(reader, path, &mut value, &["mode", "message", "when"]);
    let kind = match name {
        "signed_in" => reader.table(path, value).map(Kind::SignedIn),
        "workspace_member" => reader
            .table(path, value)
            .map(Box::new)
            .map(Kind::WorkspaceMember),
        "rate_limit" => reader.table(path, value).map(Kind::RateLimit),
        "quota" => reader.table(path, value).map(Kind::Quota),
        "upload_intent" => reader.table(path, value).map(Kind::UploadIntent),
        "expression" => reader.table(path, value).map(Kind::Expression),
        "remote" => reader.table(path, value).map(Kind::Remote),
        name if kinds.contains(name) => {
            let failing: Option<Failing> = shared(reader, path, &mut value, &["on_failure"]);
            let on_failure = failing.unwrap_or_default().on_failure;
            let custom = kinds.read(name, reader, path, value, on_failure);
            custom.map(Kind::Custom)
        }
        _ => {
            let known: Vec<_> = kinds.names().map(|name| format!("`{name}`")).collect();
            let message = format!("`{kind}` is no kind; there are {}", known.join(", "));
            reader.fault(join(path, "kind"), message);
            None
        }
    };
    Some((common?, kind?))
}

/// What every registered kind of policy takes besides [`Common`].
#[derive(Default, Deserialize, JsonSchema)]
struct Failing {
    #[serde(default)]
    on_failure: OnFailure,
}

/// Takes what kinds of policy share out of a table.
fn shared<'t, T: DeserializeOwned + JsonSchema>(
    reader: &mut Reader,
    path: &str,
    value: &mut Value<'t>,
    keys: &[&str],
) -> Option<T> {
    let place = value.span();
    let mut shared = DeTable::new();
    if let DeValue::Table(table) = value.get_mut() {
        for name in keys {
            if let Some((key, entry)) = table.remove_entry(*name) {
                shared.insert(key, entry);
            }
        }
    }
    reader.table(path, Spanned::new(place, DeValue::Table(shared)))
}

fn routes(reader: &mut Reader, document: &mut DeTable<'_>) -> Vec<RouteSettings> {
    let Some(value) = document.remove("routes") else {
        reader.fault("routes", "at least one [[routes]] is required");
        return Vec::new();
    };
    let DeValue::Array(entries) = value.into_inner() else {
        reader.fault("routes", "must be written as [[routes]]");
        return Vec::new();
    };
    entries
        .into_iter()
        .enumerate()
        .filter_map(|(index, value)| reader.table(&format!("routes[{index}]"), value))
        .collect()
}

/// Reads `[management]` alone: no secret is needed, and no other section looked at.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn load_management(file: &str, text: &str) -> Result<ManagementSettings, Faults> {
    let mut reader = Reader::default();
    let mut document = reader.parse(text);
    let management = section(&mut reader, &mut document, "management");
    match management.unwrap_or_else(|| Some(ManagementSettings::default())) {
        Some(management) if reader.faults.is_empty() => Ok(management),
        _ => Err(Faults::new(file, text, reader.faults)),
    }
}
