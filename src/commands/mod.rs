//! The command line: what each command does.

mod check;
mod explain;
mod health;
mod sandbox;
mod serve;

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    settings::{self, Settings},
    startup::Builder,
};

/// Issues Imgwire upload tokens to those whom your policies let upload.
#[derive(Parser)]
#[command(name = "imgwire-gate", version)]
struct Arguments {
    /// The config file; default: config/default.toml, then /etc/imgwire-gate/config.toml
    #[arg(long, global = true, env = "IMGWIRE_GATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Load the config file again when it changes, as on SIGHUP
    #[arg(long, global = true)]
    watch: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gate (this is what happens without a command)
    Serve,
    /// Check the config file: print each route's chain, or every fault
    Check {
        /// Also try what it leads to: stores, issuers' keys, Imgwire's health; nothing is consumed
        #[arg(long)]
        connect: bool,
    },
    /// Run the gate with an emulated Imgwire and a demo user: no account, no network
    Sandbox,
    /// Ask the running gate whether it is ready
    Health,
    /// Print the JSON Schema of the config file
    Schema,
    /// Print what each policy says to a described request; nothing is consumed
    Explain {
        /// The request as JSON: route, subject {id, claims} or token, workspace, purpose, file, ip
        #[arg(long, value_name = "FILE.json")]
        request: PathBuf,
    },
    /// Run a table of described requests and expected outcomes; nothing is consumed
    Test {
        /// The table as TOML: [[cases]] with name, expect ("allow" or a code), and a request as in `explain`
        #[arg(value_name = "CASES.toml")]
        cases: PathBuf,
    },
}

/// Does what the command line says, with a gate as `builder` makes it.
pub fn run(builder: Builder) -> ExitCode {
    let Arguments {
        config,
        watch,
        command,
    } = Arguments::parse();
    let config = Config {
        path: config,
        builder,
    };
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(&config, watch),
        Command::Check { connect } => check::check(&config, connect),
        Command::Sandbox => sandbox::sandbox(&config.builder),
        Command::Health => health::health(&config),
        Command::Schema => schema(&config.builder),
        Command::Explain { request } => explain::explain(&config, &request),
        Command::Test { cases } => explain::test(&config, &cases),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Where the config file is looked for, when nobody says.
const DEFAULT_CONFIGS: [&str; 2] = ["config/default.toml", "/etc/imgwire-gate/config.toml"];

/// Why a command failed.
enum Failure {
    /// The config file is faulty: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    Other(String),
}

impl Failure {
    fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Writes the failure to standard error, and says what to exit with.
    fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Config(text) => (2, text),
            Self::Other(text) => (1, format!("imgwire-gate: {text}")),
        };
        // There is nobody to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(code)
    }
}

/// Prints the JSON Schema of the config file.
fn schema(builder: &Builder) -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&builder.schema()).map_err(Failure::other)?;
    print(&schema)
}

/// Writes a line to standard output.
fn print(line: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(Failure::other)
}

/// The config file that the command line names, and what reads it.
struct Config {
    path: Option<PathBuf>,
    builder: Builder,
}

impl Config {
    /// Which file it is: the one that is named, or the first default that exists.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let mut defaults = DEFAULT_CONFIGS.iter().map(PathBuf::from);
        defaults.find(|path| path.exists()).ok_or_else(|| {
            let [first, second] = DEFAULT_CONFIGS;
            Failure::Config(format!(
                "there is no config file: neither {first} nor {second}; name one with --config"
            ))
        })
    }

    /// Reads and checks it.
    fn load(&self) -> Result<Settings, Failure> {
        let path = self.path()?;
        load_text(&self.builder, &path, &read(&path)?, &process_environment)
    }
}

/// Reads a file that the command line names.
fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::Config(format!("{}: {error}", path.display())))
}

fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_text(
    builder: &Builder,
    path: &Path,
    text: &str,
    environment: settings::Environment<'_>,
) -> Result<Settings, Failure> {
    builder
        .load(&path.display().to_string(), text, environment)
        .map_err(|faults| Failure::Config(faults.to_string()))
}
