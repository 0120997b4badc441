//! The command line. Each command has its own file.

mod check;
mod described;
mod doctor;
mod explain;
mod failure;
mod health;
mod images;
mod management;
mod quota;
mod running_gate;
mod sandbox;
mod serve;
mod signals;

use std::{
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::failure::Failure;
pub use self::{check::describe_chains, doctor::diagnose};
use crate::{
    config::{self, ConfigSource, files::read_text},
    http::openapi,
    outbound::reason,
    server::{Builder, settings::Settings},
};

/// The version, and the commit of the build.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("IMGWIRE_GATE_COMMIT"),
    ")"
);

const EXAMPLES: &str = "\
Get started:
  imgwire-gate sandbox                          Run a gate with an emulated Imgwire and demo users
  imgwire-gate check gate.toml                  Check a config file, and print the chain of each route
  imgwire-gate doctor gate.toml                 Also try everything that the config leads to
  imgwire-gate --config gate.toml               Run the gate

More:
  imgwire-gate doctor --probe                   Also try an upload without a token, which Imgwire must refuse
  imgwire-gate sandbox --config gate.toml       Run your own config with an emulated Imgwire
  imgwire-gate explain --request request.json   Print what each policy decides about a request
  imgwire-gate test cases.toml                  Run a table of requests with expected outcomes
  imgwire-gate images --image ID                Print who uploaded an image
  imgwire-gate quota show daily --key ws_1      Print the usage of a quota of the running gate
  imgwire-gate --watch                          Reload the config when a file of it changes, as on SIGHUP

Exit status: 0 on success, 2 if the config is invalid, 1 on any other error.
The log goes to standard error. RUST_LOG filters it, for example RUST_LOG=debug.";

/// Issues Imgwire upload tokens to the users that your policies allow.
#[derive(Parser)]
#[command(name = "imgwire-gate", version = VERSION, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    serve: ServeOptions,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct ServeOptions {
    #[command(flatten)]
    config: ConfigOption,

    /// Reload the config when its file changes, or a file that it names, as on SIGHUP
    #[arg(long)]
    watch: bool,
}

#[derive(Args)]
struct ConfigOption {
    /// The config file, or `-` for standard input [default: the config in IMGWIRE_GATE_CONFIG_TOML, then the file that
    /// IMGWIRE_GATE_CONFIG names, then config/default.toml, then /etc/imgwire-gate/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A config file that may also stand without `--config`.
#[derive(Args)]
struct ConfigArgument {
    /// The config file, as with --config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    option: ConfigOption,
}

impl From<ConfigArgument> for ConfigOption {
    fn from(ConfigArgument { file, option }: ConfigArgument) -> Self {
        Self {
            config: file.or(option.config),
        }
    }
}

/// The gate that a command asks. The option may also stand behind a subcommand.
#[derive(Args)]
struct RunningGateOption {
    /// The config of the running gate, as with `serve`
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl From<RunningGateOption> for ConfigOption {
    fn from(RunningGateOption { config }: RunningGateOption) -> Self {
        Self { config }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate (default)
    Serve(ServeOptions),
    /// Check the config file, and print each route's chain or all errors
    Check {
        #[command(flatten)]
        config: ConfigArgument,

        /// Of earlier versions
        #[arg(long, hide = true)]
        connect: bool,
    },
    /// Check the config file, and try everything that it leads to: stores, services, issuers and Imgwire
    ///
    /// It consumes nothing that counts. At Imgwire it creates one upload token, which expires unused.
    Doctor {
        #[command(flatten)]
        config: ConfigArgument,

        /// Also declare an upload without a token, which Imgwire must refuse; needs `client_key` in [imgwire]
        #[arg(long)]
        probe: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Run the gate with an emulated Imgwire and demo users; needs no account and no network
    Sandbox(sandbox::Options),
    /// Exit with 0 if the running gate is ready, or print what is failing
    ///
    /// The gate itself says where it listens, so its config file may have changed since.
    Health {
        #[command(flatten)]
        config: ConfigOption,

        /// Ask only whether the process responds
        #[arg(long)]
        live: bool,
    },
    /// Find out who uploaded an image, and erase the images of a user, at the running gate
    ///
    /// The command sends the management token of the config, if the config has one.
    Images {
        #[command(flatten)]
        gate: RunningGateOption,

        #[command(flatten)]
        filter: images::Filter,

        #[command(subcommand)]
        command: Option<images::Images>,
    },
    /// Show or reset a counter of the running gate
    ///
    /// The command sends the management token of the config, if the config has one.
    Quota {
        #[command(flatten)]
        gate: RunningGateOption,

        #[command(subcommand)]
        command: quota::Quota,
    },
    /// Print the JSON Schema of the config file, for completion in editors
    Schema,
    /// Print the OpenAPI 3.1 document of the HTTP API
    ///
    /// A running gate serves it, with its own routes, at /openapi.json on the management listener.
    Openapi,
    /// Print a completion script for a shell
    ///
    /// For example: imgwire-gate completions bash > /etc/bash_completion.d/imgwire-gate
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// Print what each policy decides about a described request, without consuming anything
    Explain {
        #[command(flatten)]
        config: ConfigOption,

        /// A JSON file with any of: route, subject {id, claims} or token, workspace, purpose, file, ip
        #[arg(long, value_name = "FILE.json")]
        request: PathBuf,
    },
    /// Test the policies with a table of described requests, without consuming anything
    Test {
        #[command(flatten)]
        config: ConfigOption,

        /// A TOML file of [[cases]], each with name, expect ("allow" or an error code), and a request as in `explain`
        #[arg(value_name = "CASES.toml")]
        cases: PathBuf,
    },
}

/// Parses the command line and runs its command, on gates that `builder` builds.
pub fn run(builder: Builder) -> ExitCode {
    // Before anything else, so that no signal ends a gate by default.
    let early = may_run_a_gate().then(signals::Signals::install);
    let signals = || {
        early
            .unwrap_or_else(signals::Signals::install)
            .map_err(|error| Failure::system("cannot handle signals", &error))
    };
    let Arguments { serve, command } = Arguments::parse();
    let builder = Arc::new(builder);
    let with = |option: ConfigOption| Config {
        argument: option.config,
        builder: builder.clone(),
    };
    let result = match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(ServeOptions { config, watch }) => {
            signals().and_then(|signals| serve::serve(&with(config), watch, &signals))
        }
        Command::Check { connect: true, .. } => Err(Failure::Config(
            "`check --connect` was replaced by `imgwire-gate doctor`".to_owned(),
        )),
        Command::Check { config, .. } => check::check(&with(config.into())),
        Command::Doctor {
            config,
            probe,
            json,
        } => doctor::doctor(&with(config.into()), probe, json),
        Command::Sandbox(options) => {
            signals().and_then(|signals| sandbox::sandbox(&builder, &options, &signals))
        }
        Command::Health { config, live } => health::health(&with(config), live),
        Command::Images {
            gate,
            filter,
            command,
        } => images::images(&with(gate.into()), &filter, command.as_ref()),
        Command::Quota { gate, command } => quota::quota(&with(gate.into()), &command),
        Command::Schema => schema(&builder),
        Command::Openapi => openapi(),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "imgwire-gate", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Explain { config, request } => explain::explain(&with(config), &request),
        Command::Test { config, cases } => explain::test(&with(config), &cases),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Whether the command line may be one of `serve` or `sandbox`. Parsing it takes longer.
fn may_run_a_gate() -> bool {
    let first = std::env::args_os().nth(1);
    first.is_none_or(|first| {
        first == "serve" || first == "sandbox" || first.as_encoded_bytes().starts_with(b"-")
    })
}

fn schema(builder: &Builder) -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&builder.schema()).map_err(Failure::other)?;
    print(&schema)
}

fn openapi() -> Result<(), Failure> {
    let document = openapi::default_document();
    let document = document.to_pretty_json().map_err(Failure::other)?;
    print(&document)
}

fn print(line: &str) -> Result<(), Failure> {
    let mut output = anstream::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(|error| Failure::system("cannot write to standard output", &error))
}

struct Config {
    /// The file that the command line names.
    argument: Option<PathBuf>,
    builder: Arc<Builder>,
}

impl Config {
    fn source(&self) -> Result<ConfigSource, Failure> {
        let found = ConfigSource::find(self.argument.clone(), |name| std::env::var_os(name));
        found.map_err(|error| Failure::Config(error.to_string()))
    }

    fn load(&self) -> Result<Settings, Failure> {
        let source = self.source()?;
        load_text(
            &self.builder,
            &source,
            &read_config(&source)?,
            &process_environment,
        )
    }
}

fn read_config(source: &ConfigSource) -> Result<String, Failure> {
    source.read().map_err(|error| unreadable(source, &error))
}

fn read(path: &Path) -> Result<String, Failure> {
    read_text(path).map_err(|error| unreadable(path.display(), &error))
}

fn unreadable(source: impl fmt::Display, error: &io::Error) -> Failure {
    Failure::Config(format!("{source}: {}", reason(error, "")))
}

fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_text(
    builder: &Builder,
    source: &ConfigSource,
    text: &str,
    environment: config::Environment<'_>,
) -> Result<Settings, Failure> {
    builder
        .load(&source.to_string(), text, environment)
        .map_err(|faults| Failure::Config(faults.to_string()))
}
