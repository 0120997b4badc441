//! `imgwire-gate sandbox --config FILE`

use std::sync::Arc;

use super::{
    super::{
        Failure, load_text, print, process_environment, read_config,
        running_gate::{Source, announce},
        serve::{run as run_until_stopped, start_telemetry},
        signals::Signals,
    },
    Options, urls,
};
use crate::{
    config::{ConfigSource, imgwire::BaseUrl, origin::OriginPattern},
    identities::Place,
    sandbox::{
        emulator::{CLIENT_KEY, SERVER_API_KEY},
        own_config::{API_KEY_VARIABLE, with_api_key},
    },
    server::{Application, Builder, settings::Settings},
};

/// Runs a gate with the user's config and an emulated Imgwire. Pages of this machine may call it, whatever their port.
pub(super) fn run(
    builder: &Arc<Builder>,
    options: &Options,
    source: &ConfigSource,
    signals: &Signals,
) -> Result<(), Failure> {
    let text = with_api_key(&read_config(source)?);
    let environment = |name: &str| match name {
        API_KEY_VARIABLE => Some(SERVER_API_KEY.to_owned()),
        _ => process_environment(name),
    };
    let configured = || load_text(builder, source, &text, &environment);
    let settings = configured()?;
    let _telemetry = start_telemetry(&settings)?;
    actix_web::rt::System::new().block_on(async {
        let emulator = options.start_emulator()?;
        let imgwire = BaseUrl::try_from(emulator.url().to_owned()).map_err(Failure::other)?;
        let adapted = || {
            let mut settings = configured()?;
            adapt(&mut settings, &imgwire);
            Ok(settings)
        };
        let application = options.build(adapted, |settings| builder.build(settings))?;
        print(&welcome(&application, &settings, source, emulator.url()))?;
        announce(
            &Source::Config(source.clone()),
            &application,
            &settings.management.bind,
        );
        run_until_stopped(application, signals).await
    })
}

fn adapt(settings: &mut Settings, imgwire: &BaseUrl) {
    settings.imgwire.base_url = imgwire.clone();
    // It would report the switches of the emulator, through a lease in the user's own store.
    settings.imgwire.audit = None;
    let origins = &mut settings.server.allowed_origins;
    origins.extend(OriginPattern::local_pages());
}

fn welcome(
    application: &Application,
    settings: &Settings,
    source: &ConfigSource,
    emulator: &str,
) -> String {
    let (gate, management) = urls(application);
    let route = settings.routes.first();
    let route = route.map_or_else(String::new, |route| route.path.to_string());
    let (credential, note) = match credential(settings) {
        Some(credential) => {
            let note = " (replace YOUR_CREDENTIAL: only your app can sign its users in)";
            (format!(" -H '{credential}'"), note)
        }
        None => (String::new(), ""),
    };
    format!(
        "imgwire-gate sandbox (stop it with ctrl-c)\n\
         \n\
         gate       {gate}\n\
         health     {management}/readyz\n\
         metrics    {management}/metrics\n\
         Imgwire    {emulator} (emulated; everything else is as {source} says)\n\
         switches   {emulator}/emulator (GET shows what the emulator does, PATCH changes it)\n\
         \n\
         Get an upload token{note}:\n\
         \n\
         curl -sS -X POST {gate}{route}{credential}\n\
         \n\
         Your page may be at any port of http://localhost or http://127.0.0.1. It uploads to the emulated Imgwire with:\n\
         \n\
         new ImgwireClient({{ apiKey: \"{CLIENT_KEY}\", baseUrl: \"{emulator}\", getUploadToken }})"
    )
}

/// The header that the first route reads its credential from. `None` if the route accepts anyone.
fn credential(settings: &Settings) -> Option<String> {
    let route = settings.routes.first()?;
    let mut policies = route
        .policies
        .iter()
        .filter_map(|name| settings.policy(name));
    let accept = policies.find_map(|policy| policy.requirements.accept.first())?;
    let mut identities = settings.identities.iter();
    let (_, identity) = identities.find(|(name, _)| name == accept)?;
    Some(match identity.profile().places.first() {
        Some(Place::Header(name) | Place::Forwarded(name)) => format!("{name}: YOUR_CREDENTIAL"),
        Some(Place::Cookie(cookie)) => format!("Cookie: {}=YOUR_CREDENTIAL", cookie.name()),
        Some(Place::Session) => {
            let (session, _) = settings.session.as_ref()?;
            format!("Cookie: {}=YOUR_CREDENTIAL", session.cookie.name.as_str())
        }
        Some(Place::Bearer) | None => "Authorization: Bearer YOUR_CREDENTIAL".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulator_is_not_audited() {
        let text = r#"
            imgwire = { api_key = { env = "KEY" }, audit = "1h" }
            policies.signed-in = { kind = "signed_in", accept = ["app"] }
            routes = [{ path = "/api/upload-token", policies = ["signed-in"] }]

            [identities.app]
            kind = "jwt"
            algorithms = ["HS256"]
            secret = { env = "KEY" }
            issuer = "https://app.example.com"
            audience = ["imgwire-gate"]
        "#;
        let environment = |_: &str| Some("sk_0123456789012345678901234567890123456789".to_owned());
        let loaded = Application::builder().load("gate.toml", text, &environment);
        let mut settings = loaded.unwrap();
        assert!(settings.imgwire.audit.is_some());
        adapt(&mut settings, &BaseUrl::default());
        assert!(settings.imgwire.audit.is_none());
    }
}
