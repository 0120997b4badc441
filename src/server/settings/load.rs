//! Reads a config file into [`Settings`].

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Kinds, Settings, contradictions,
    fixed::{FIXED_SECTIONS, Fixed, RELOADED_SECTIONS},
    open_routes, policy, routes,
    stores::{self, Stores},
    unused, upload_routes,
};
use crate::{
    config::{
        Environment, EventsSettings, Faults, ImgwireSettings, ManagementSettings, ReadFiles,
        ServerSettings, SessionSettings, TelemetrySettings, UploadsSettings,
        document::Reader,
        fault::{homes, unknown},
        named::{Named, named, take_kind},
        outbound::OutboundSettings,
        shape::schema_of,
    },
    identities::{ConfiguredIdentities, OtherSections},
};

const EMPTY: &str = "the config has no keys; write at least api_key = { env = \"NAME\" } in [imgwire], a policy in \
                     [policies.NAME], and policies = [\"NAME\"] in [[routes]]";

/// Loads a config file. `text` is its content; `file` is its name in error messages.
pub fn load(file: &str, text: &str, environment: Environment<'_>) -> Result<Settings, Faults> {
    load_with(&Kinds::default(), file, text, environment)
}

/// Like [`load`], with additional kinds.
pub fn load_with(
    kinds: &Kinds,
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<Settings, Faults> {
    let mut reader = Reader::default();
    let mut document = reader.parse(text);
    if reader.faults.is_empty() && document.is_empty() {
        reader.fault("", EMPTY);
    }
    let settings = if reader.faults.is_empty() {
        reader.replace_variables(&mut document, environment);
        let unreplaced = reader.faults.len();
        let fixed = toml::from_str(text).map(Fixed::new).unwrap_or_default();
        let settings = read(&mut reader, &mut document, kinds, environment, fixed);
        reader.drop_consequences(unreplaced);
        settings
    } else {
        None
    };
    match settings {
        Some(settings) if reader.faults.is_empty() => {
            unused::warn(&mut reader, &settings);
            open_routes::warn(&mut reader, &settings);
            Ok(Settings {
                warnings: reader.take_warnings(file, text),
                files: reader.files,
                ..settings
            })
        }
        _ => Err(reader.into_faults(file, text)),
    }
}

fn read(
    reader: &mut Reader,
    document: &mut DeTable<'_>,
    kinds: &Kinds,
    environment: Environment<'_>,
    fixed: Fixed,
) -> Option<Settings> {
    let sections = FIXED_SECTIONS.into_iter().chain(RELOADED_SECTIONS);
    note_keys(reader);
    for (key, value) in document.iter() {
        let key = key.get_ref();
        if sections.clone().any(|section| section == key.as_ref()) {
            continue;
        }
        let message = match homes(&reader.keys, key) {
            Some(homes) if !matches!(value.get_ref(), DeValue::Table(_)) => {
                format!("is a key of {homes}; write it below that header")
            }
            _ => unknown("section", key, sections.clone()),
        };
        reader.fault(key.as_ref(), message);
    }
    for section in ["stores", "identities", "policies"] {
        reader.note_names(document, section);
    }
    // Read every section first, so that each can be checked against the others.
    let server: Option<ServerSettings> = section_or_default(reader, document, "server");
    let management: Option<ManagementSettings> = section_or_default(reader, document, "management");
    let telemetry = section_or_default(reader, document, "telemetry");
    let imgwire: Option<ImgwireSettings> =
        section(reader, document, "imgwire").unwrap_or_else(|| {
            let empty = Spanned::new(0..0, DeValue::Table(DeTable::new()));
            reader.table("imgwire", empty)
        });
    let outbound: Option<OutboundSettings> = section_or_default(reader, document, "outbound");
    let session: Option<Option<SessionSettings>> = section(reader, document, "session");
    let stores = Stores(named(reader, document, "stores", |reader, path, value| {
        stores::read(reader, environment, path, value)
    }));
    let identities = named(reader, document, "identities", |reader, path, mut value| {
        let known = kinds.identities.names();
        let kind = take_kind(reader, path, &mut value, "identity kind", known)?;
        kinds.identities.read(&kind, reader, path, value)
    });
    let identities = ConfiguredIdentities(identities);
    let profiles = identities.profiles();
    let policies = named(reader, document, "policies", |reader, path, value| {
        policy::read(reader, &kinds.policies, environment, path, value)
    });
    let routes = routes::read(reader, document);
    let uploads: Option<UploadsSettings> = section_or_default(reader, document, "uploads");
    let events: Option<Option<EventsSettings>> = section(reader, document, "events");
    reader.check_names();

    if let Some(server) = &server {
        server.check(reader);
        contradictions::check_server(reader, server);
    }
    if let (Some(server), Some(management)) = (&server, &management) {
        contradictions::check_listeners(reader, server, management);
    }
    if let Some(telemetry) = &telemetry {
        contradictions::check_telemetry(reader, telemetry);
    }
    if let Some(imgwire) = &imgwire {
        contradictions::check_imgwire(reader, imgwire);
    }
    if let Some(Some(session)) = &session {
        contradictions::check_session(reader, session, &profiles);
    }
    let facts = OtherSections {
        server: server.as_ref(),
        has_session: session.is_some(),
        environment,
    };
    let resolved_identities = identities.resolve(reader, facts);
    policy::check(reader, &policies, &stores, &profiles);
    stores::check_files(reader, &stores, |name| {
        policy::counts_in(&policies, name)
            || routes.iter().any(|it| it.store.as_ref() == Some(name))
    });
    routes::check_paths(reader, &routes);
    policy::check_chains(reader, &routes, &policies, &profiles);
    upload_routes::check(reader, &routes, &policies, &stores);
    let session = match session {
        None => Some(None),
        // Its faults must not hide those of later sections.
        Some(session) => session
            .and_then(|session| {
                stores::resolve_session(session, reader, environment, &stores, &profiles)
            })
            .map(Some),
    };
    let imgwire_key = imgwire.as_ref();
    let events = match events {
        None => Some(None),
        Some(events) => events
            .and_then(|events| {
                events.check(reader);
                let keys = events.load_keys(reader, environment)?;
                Some((events, keys))
            })
            .map(Some),
    };
    let api_key = imgwire_key.and_then(|imgwire| imgwire.load_api_key(reader, environment));
    let token = management.as_ref();
    let management_token = token.and_then(|section| section.load_token(reader, environment));
    let authorities = outbound.and_then(|outbound| outbound.authorities(reader));

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
        stores: all(stores.0)?,
        identities: resolved_identities?,
        policies: all(policies)?,
        routes,
        events: events?,
        uploads: uploads?,
        files: ReadFiles::default(),
        warnings: Faults::default(),
    })
}

/// Notes which section has which key, for messages about a key in another one.
fn note_keys(reader: &mut Reader) {
    let mut note = |section, schema: Json| {
        let keys = schema["properties"].as_object().into_iter().flatten();
        let keys = keys.map(|(key, _)| key.clone()).collect();
        reader.keys.insert(section, keys);
    };
    note("server", schema_of::<ServerSettings>());
    note("management", schema_of::<ManagementSettings>());
    note("telemetry", schema_of::<TelemetrySettings>());
    note("imgwire", schema_of::<ImgwireSettings>());
    note("session", schema_of::<SessionSettings>());
    note("events", schema_of::<EventsSettings>());
}

/// `None` if an entry could not be read.
fn all<N, T>(entries: Vec<Named<N, T>>) -> Option<Vec<(N, T)>> {
    let entries = entries.into_iter();
    entries.map(|(name, entry)| Some((name, entry?))).collect()
}

fn section<T: DeserializeOwned + JsonSchema>(
    reader: &mut Reader,
    document: &mut DeTable<'_>,
    name: &str,
) -> Option<Option<T>> {
    let value = document.remove(name)?;
    Some(reader.table(name, value))
}

fn section_or_default<T: DeserializeOwned + JsonSchema + Default>(
    reader: &mut Reader,
    document: &mut DeTable<'_>,
    name: &str,
) -> Option<T> {
    section(reader, document, name).unwrap_or_else(|| Some(T::default()))
}

/// Loads only `[management]`, which needs no secret. Ignores the other sections.
pub fn load_management(
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<ManagementSettings, Faults> {
    read_management(file, text, environment, |_, management| Some(management))
}

/// Loads only the management token. Ignores the other sections.
pub fn load_management_token(
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<Option<SecretString>, Faults> {
    read_management(file, text, environment, |reader, management| {
        management.load_token(reader, environment)
    })
}

fn read_management<T>(
    file: &str,
    text: &str,
    environment: Environment<'_>,
    resolve: impl FnOnce(&mut Reader, ManagementSettings) -> Option<T>,
) -> Result<T, Faults> {
    const SECTION: &str = "management";

    let mut reader = Reader::default();
    let mut document = reader.parse(text);
    // The variables of other sections may be unset here.
    let mut only = DeTable::new();
    only.extend(document.remove_entry(SECTION));
    reader.replace_variables(&mut only, environment);
    let management = section_or_default(&mut reader, &mut only, SECTION);
    match management.and_then(|management| resolve(&mut reader, management)) {
        Some(resolved) if reader.faults.is_empty() => Ok(resolved),
        _ => Err(reader.into_faults(file, text)),
    }
}
