//! Reads a config file into [`Settings`].

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
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
        Environment, Faults, ImgwireSettings, ManagementSettings, ReadFiles, ServerSettings,
        SessionSettings, UploadsSettings,
        document::{Named, Reader, named, take_kind},
        fault::unknown,
        outbound::OutboundSettings,
    },
    identities::{ConfiguredIdentities, OtherSections},
};

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
    for key in document.keys().map(Spanned::get_ref) {
        if !sections.clone().any(|section| section == key.as_ref()) {
            reader.fault(key.as_ref(), unknown("section", key, sections.clone()));
        }
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
        uploads: uploads?,
        files: ReadFiles::default(),
        warnings: Faults::default(),
    })
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
