//! `imgwire-gate sandbox`

mod own_config;

use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    config::{ConfigSource, Faults, imgwire::BaseUrl, server::Bind},
    outbound::reason,
    sandbox::{
        confine::{self, Allowed},
        emulator::{Emulator, SERVER_API_KEY},
        playground::{
            Playground, Running,
            config::{Config, TextSource},
            events::{Inbox, point_events_at},
        },
    },
    server::{Application, Builder, StartError, listeners::Mount, settings::Settings},
    stores::{OpenError, StoreUrl},
    telemetry,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Args;
use policies::{Clock as _, SystemClock};
use tempfile::TempDir;
use url::Url;

use super::{
    Failure, print,
    running_gate::{Source, announce},
    serve::{log_format, run},
    signals::Signals,
};

const FILE: &str = "config/sandbox.toml";
const CONFIG: &str = include_str!("../../config/sandbox.toml");

#[derive(Args)]
pub(super) struct Options {
    /// Run this config file instead of the demo, with the emulator in place of Imgwire
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The port of the gate [default: the one in the config, or a free one if that is taken]
    #[arg(long, value_name = "N")]
    port: Option<u16>,

    /// The port of the emulated Imgwire [default: a free one]
    #[arg(long, value_name = "N")]
    imgwire_port: Option<u16>,
}

pub(super) fn sandbox(
    builder: &Arc<Builder>,
    options: &Options,
    signals: &Signals,
) -> Result<(), Failure> {
    match &options.config {
        None => demo(builder, options, signals),
        Some(path) => {
            let source = ConfigSource::named(path.clone());
            own_config::run(builder, options, &source, signals)
        }
    }
}

impl Options {
    fn start_emulator(&self) -> Result<Emulator, Failure> {
        let port = self.imgwire_port.unwrap_or(0);
        Emulator::start_at(port, Arc::new(SystemClock::new())).map_err(|error| {
            Failure::system(format_args!("cannot listen on 127.0.0.1:{port}"), &error)
        })
    }

    /// Builds the gate that `load` describes, at a port that the user chose or that is free.
    fn build(
        &self,
        load: impl Fn() -> Result<Settings, Failure>,
        build: impl Fn(Settings) -> Result<Application, StartError>,
    ) -> Result<Application, Failure> {
        let mut tries = 0;
        loop {
            let mut settings = load()?;
            settings.server.bind = self.bind(&settings.server.bind)?;
            settings.management.bind = free(&settings.management.bind, 9090)?;
            if let Bind::Tcp(address) = settings.server.bind {
                point_events_at(&mut settings, address);
            }
            match build(settings) {
                Ok(application) => return Ok(application),
                Err(error) if tries < TRIES && self.is_temporary(&error) => tries += 1,
                Err(error) => return Err(Failure::start(error)),
            }
            std::thread::sleep(RETRY_DELAY);
        }
    }

    /// Whether another process took a port that was free, or an earlier try still holds a store.
    fn is_temporary(&self, error: &StartError) -> bool {
        match error {
            StartError::Listen { bind, source } => {
                let is_chosen = self.port.map(on_loopback).as_ref() == Some(bind);
                source.kind() == io::ErrorKind::AddrInUse && !is_chosen
            }
            StartError::Store(error) => matches!(error.source, OpenError::InUse(_)),
            StartError::Policy(_) => false,
        }
    }

    /// The address of the gate, which is on loopback. Browsers cannot reach a Unix socket.
    fn bind(&self, configured: &Bind) -> Result<Bind, Failure> {
        match self.port {
            // The events need a port that is known before the gate starts.
            Some(0) => free(&on_loopback(0), 0),
            Some(port) => Ok(on_loopback(port)),
            None => free(configured, 8080),
        }
    }
}

fn on_loopback(port: u16) -> Bind {
    Bind::Tcp((Ipv4Addr::LOCALHOST, port).into())
}

/// The URLs of a gate: the public one and the one of its management listener.
fn urls(application: &Application) -> (String, String) {
    let url = |address: Option<SocketAddr>| address.map(|address| format!("http://{address}"));
    let public = url(application.address()).unwrap_or_default();
    let management = url(application.management_address()).unwrap_or_default();
    (public, management)
}

/// How often, and how long apart, to try again to start the gate.
const TRIES: usize = 20;
const RETRY_DELAY: Duration = Duration::from_millis(25);

/// What the sandbox provides to its config.
struct Environment {
    secret: String,
    session_key: String,
    events_secret: String,
    /// The folder of the counters.
    folder: PathBuf,
    emulator: Url,
    base_url: BaseUrl,
}

impl Environment {
    /// Loads a config that the playground page may have sent. It can read no variable or file of this machine, and name
    /// no host other than the emulator.
    fn load(&self, builder: &Builder, text: &str) -> Result<Settings, Faults> {
        let variables = [
            ("SANDBOX_IMGWIRE_API_KEY", SERVER_API_KEY),
            ("SANDBOX_JWT_SECRET", &self.secret),
            ("SANDBOX_SESSION_KEY", &self.session_key),
            ("SANDBOX_EVENTS_SECRET", &self.events_secret),
        ];
        let allowed = Allowed {
            variables: &variables.map(|(name, _)| name),
            host: &self.emulator,
            config: CONFIG,
        };
        confine::check(FILE, text, &allowed)?;
        let variable = |wanted: &str| {
            let variable = variables.iter().find(|(name, _)| *name == wanted);
            variable.map(|(_, value)| (*value).to_owned())
        };
        let mut settings = builder.load(FILE, text, &variable)?;
        for (name, store) in &mut settings.stores {
            store.url = StoreUrl::file(&self.folder.join(format!("{name}.db")));
        }
        settings.imgwire.base_url = self.base_url.clone();
        Ok(settings)
    }
}

/// Runs a gate with `config/sandbox.toml`, an emulated Imgwire and the playground page. The counters are in a temporary
/// folder.
fn demo(builder: &Arc<Builder>, options: &Options, signals: &Signals) -> Result<(), Failure> {
    let folder = counters_folder()?;
    actix_web::rt::System::new().block_on(async {
        let emulator = Arc::new(options.start_emulator()?);
        let environment = Arc::new(Environment {
            secret: random_text()?,
            session_key: random_text()?,
            events_secret: random_events_secret()?,
            folder: folder.path().to_owned(),
            emulator: Url::parse(emulator.url()).map_err(Failure::other)?,
            base_url: BaseUrl::try_from(emulator.url().to_owned()).map_err(Failure::other)?,
        });
        let configured = || {
            let settings = environment.load(builder, CONFIG);
            settings.map_err(|faults| Failure::Config(faults.to_string()))
        };
        let settings = configured()?;
        let _log = telemetry::start_log(log_format(settings.telemetry.log));
        telemetry::keep_lines();
        let now = SystemClock::new().now();
        let load = {
            let (builder, environment) = (builder.clone(), environment.clone());
            Box::new(move |text: &str| environment.load(&builder, text))
        };
        let in_force = (CONFIG.to_owned(), &settings);
        let playground = Arc::new(Playground {
            key: random_text()?,
            demo_secret: Some(environment.secret.clone()),
            config: Config::new(
                FILE.to_owned(),
                TextSource::BuiltIn(CONFIG),
                load,
                in_force,
                now,
            ),
            emulator,
            inbox: Inbox::default(),
            running: OnceLock::new(),
        });
        let mount = mount(&playground);
        let application = options.build(configured, |settings| {
            builder.build_with(settings, mount.clone())
        })?;
        begin(&playground, &application);
        let route = settings.routes.first().map(|route| route.path.to_string());
        let users = playground.users(now.as_second());
        let token = users[0]["token"].as_str().unwrap_or_default();
        let curl = (route.unwrap_or_default(), token);
        print(&welcome(&application, &playground, curl))?;
        announce(&Source::Sandbox, &application, &settings.management.bind);
        run(application, signals).await
    })
}

/// A temporary folder for the counters.
fn counters_folder() -> Result<TempDir, Failure> {
    const HINT: &str = "set TMPDIR to a folder in which this user may create files";

    tempfile::tempdir().map_err(|error| {
        let (folder, reason) = (env::temp_dir(), reason(&error, ""));
        Failure::Other {
            text: format!("cannot create a folder in {}: {reason}", folder.display()),
            hint: Some(HINT),
        }
    })
}

/// The configured port on loopback, or `default` for a Unix socket; another port if that one is taken.
fn free(configured: &Bind, default: u16) -> Result<Bind, Failure> {
    let wanted = match configured {
        Bind::Tcp(address) => address.port(),
        Bind::Unix(_) => default,
    };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        }
        other => other,
    };
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(Bind::Tcp).map_err(|source| {
        let bind = on_loopback(wanted);
        Failure::start(StartError::Listen { bind, source })
    })
}

/// Random text of 64 characters.
fn random_text() -> Result<String, Failure> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes()?))
}

/// A secret as the Standard Webhooks specification wants it.
fn random_events_secret() -> Result<String, Failure> {
    Ok(format!("whsec_{}", STANDARD.encode(random_bytes()?)))
}

fn random_bytes() -> Result<[u8; 48], Failure> {
    let mut bytes = [0; 48];
    aws_lc_rs::rand::fill(&mut bytes).map_err(Failure::other)?;
    Ok(bytes)
}

/// Adds the page to the public listener.
fn mount(playground: &Arc<Playground>) -> Mount {
    let playground = playground.clone();
    Arc::new(move |config| playground.mount(config))
}

/// Gives the running gate to the page.
fn begin(playground: &Playground, application: &Application) {
    // This is the only place that sets them.
    if let Some(address) = application.address() {
        let _ = playground.config.address.set(address);
    }
    let _ = playground.running.set(Running {
        reloader: application.reloader(),
        management: urls(application).1,
    });
}

fn welcome(
    application: &Application,
    playground: &Playground,
    (route, token): (String, &str),
) -> String {
    let (gate, management) = urls(application);
    let emulator = playground.emulator.url();
    let key = &playground.key;
    format!(
        "imgwire-gate sandbox (stop it with ctrl-c)\n\
         \n\
         playground {gate}/?key={key}\n\
         gate       {gate}\n\
         health     {management}/readyz\n\
         metrics    {management}/metrics\n\
         Imgwire    {emulator} (emulated: nothing leaves this machine)\n\
         switches   {emulator}/emulator (GET shows what the emulator does, PATCH changes it)\n\
         \n\
         Get an upload token as user_1, an editor of workspace ws_1 on the free plan:\n\
         \n\
         curl -sS -X POST {gate}{route} -H 'Authorization: Bearer {token}'\n\
         \n\
         Without the header, the gate returns 401. With curl -i you see the limits in the RateLimit field. \
         The config is config/sandbox.toml."
    )
}
