//! `imgwire-gate sandbox --config FILE`

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use policies::{Clock as _, SystemClock};

use super::{
    super::{
        Failure, print, process_environment, read_config,
        running_gate::{Source, announce},
        serve::{run as run_until_stopped, start_telemetry},
        signals::Signals,
    },
    Options, begin, mount, random_text, urls,
};
use crate::{
    config::{ConfigSource, imgwire::BaseUrl, origin::OriginPattern},
    gate::route_paths::{CREATE_UPLOAD, RouteAction, WORKSPACE},
    sandbox::{
        emulator::{CLIENT_KEY, SERVER_API_KEY},
        own_config::{API_KEY_VARIABLE, with_api_key},
        playground::{
            Playground,
            config::{Config, TextSource},
            credential::credential,
            events::Inbox,
        },
    },
    server::{Application, Builder, settings::Settings},
    telemetry,
};

/// Runs a gate with the user's config, an emulated Imgwire and the playground page. Pages of this machine may call it,
/// whatever their port.
pub(super) fn run(
    builder: &Arc<Builder>,
    options: &Options,
    source: &ConfigSource,
    signals: &Signals,
) -> Result<(), Failure> {
    let environment = |name: &str| match name {
        API_KEY_VARIABLE => Some(SERVER_API_KEY.to_owned()),
        _ => process_environment(name),
    };
    let load = {
        let (builder, file) = (builder.clone(), source.to_string());
        move |text: &str| builder.load(&file, &with_api_key(text), &environment)
    };
    let text = read_config(source)?;
    let configured = || load(&text).map_err(|faults| Failure::Config(faults.to_string()));
    let settings = configured()?;
    let _telemetry = start_telemetry(&settings)?;
    telemetry::keep_lines();
    actix_web::rt::System::new().block_on(async {
        let emulator = Arc::new(options.start_emulator()?);
        let imgwire = BaseUrl::try_from(emulator.url().to_owned()).map_err(Failure::other)?;
        let load = {
            let (load, imgwire) = (load.clone(), imgwire.clone());
            Box::new(move |text: &str| {
                let mut settings = load(text)?;
                adapt(&mut settings, &imgwire);
                Ok(settings)
            })
        };
        let adapted = || {
            let mut settings = configured()?;
            adapt(&mut settings, &imgwire);
            Ok(settings)
        };
        let file = source.file().filter(|path| path.is_file());
        let text_source = TextSource::Own(file.map(Path::to_owned));
        let now = SystemClock::new().now();
        let in_force = (text.clone(), &settings);
        let playground = Arc::new(Playground {
            key: random_text()?,
            demo_secret: None,
            config: Config::new(source.to_string(), text_source, load, in_force, now),
            emulator,
            inbox: Inbox::default(),
            running: OnceLock::new(),
        });
        let mount = mount(&playground);
        let application = options.build(adapted, |settings| {
            builder.build_with(settings, mount.clone())
        })?;
        begin(&playground, &application);
        print(&welcome(&application, &settings, source, &playground))?;
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
    playground: &Playground,
) -> String {
    let (gate, management) = urls(application);
    let (key, emulator) = (&playground.key, playground.emulator.url());
    let route = settings.routes_of(RouteAction::Token).next();
    let route = route.or(settings.routes.first());
    let path = route.map_or("", |route| route.path.as_str());
    let place = route.and_then(|route| credential(settings, route));
    let (credential, note) = match place {
        Some(place) => {
            let note = match path.contains(WORKSPACE) {
                true => {
                    " (replace {workspace}, and YOUR_CREDENTIAL: only your app can sign its users in)"
                }
                false => " (replace YOUR_CREDENTIAL: only your app can sign its users in)",
            };
            (format!(" -H '{}'", place.header("YOUR_CREDENTIAL")), note)
        }
        None => (String::new(), ""),
    };
    let (what, call, sdk) = match route.map(|route| route.action) {
        Some(RouteAction::Upload) => (
            "Create an upload",
            format!(
                "{CREATE_UPLOAD} --json '{{\"file_name\":\"me.png\",\"mime_type\":\"image/png\"}}'"
            ),
            format!("new ImgwireClient({{ apiKey: YOUR_CREDENTIAL, baseUrl: \"{gate}{path}\" }})"),
        ),
        Some(RouteAction::Token) | None => (
            "Get an upload token",
            String::new(),
            format!(
                "new ImgwireClient({{ apiKey: \"{CLIENT_KEY}\", baseUrl: \"{emulator}\", getUploadToken }})"
            ),
        ),
    };
    format!(
        "imgwire-gate sandbox (stop it with ctrl-c)\n\
         \n\
         playground {gate}/?key={key}\n\
         gate       {gate}\n\
         health     {management}/readyz\n\
         metrics    {management}/metrics\n\
         Imgwire    {emulator} (emulated; everything else is as {source} says)\n\
         switches   {emulator}/emulator (GET shows what the emulator does, PATCH changes it)\n\
         \n\
         {what}{note}:\n\
         \n\
         curl -sS -X POST {gate}{path}{call}{credential}\n\
         \n\
         Your page may be at any port of http://localhost or http://127.0.0.1. It uploads to the emulated Imgwire with:\n\
         \n\
         {sdk}"
    )
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
