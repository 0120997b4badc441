//! The command line: what each command does.

mod check;
mod connections;
mod explain;
mod health;
mod sandbox;
mod serve;

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anstyle::{AnsiColor, Style};
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

pub use self::check::describe_chains;
use crate::{
    config,
    http::openapi,
    server::{Builder, StartError, settings::Settings},
};

/// The version, and the commit that it was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("IMGWIRE_GATE_COMMIT"),
    ")"
);

const EXAMPLES: &str = "\
Begin here:
  imgwire-gate sandbox                          a gate, an emulated Imgwire and a demo user; nothing else is needed
  imgwire-gate check --config gate.toml         what is wrong with a config, or the chain of each route
  imgwire-gate --config gate.toml               runs it

Then:
  imgwire-gate check --connect                  tries its stores, keys and Imgwire's health, too
  imgwire-gate explain --request request.json   what each policy says to a request that you describe
  imgwire-gate test cases.toml                  a table of such requests, with what you expect
  imgwire-gate --watch                          takes over changes of the file while it runs; so does SIGHUP

It exits with 0 when all is well, with 2 when the config is faulty, and with 1 otherwise.
RUST_LOG chooses the lines of the log, which goes to standard error.";

/// Issues Imgwire upload tokens to the users that your policies allow.
#[derive(Parser)]
#[command(name = "imgwire-gate", version = VERSION, after_help = EXAMPLES)]
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
    /// Print the JSON Schema of the config file, for an editor to complete it by
    Schema,
    /// Print the API as OpenAPI 3.1; a running gate has it, with its own routes, at /openapi.json of its management listener
    Openapi,
    /// Print a script that completes this command line in a shell
    ///
    /// For example: imgwire-gate completions bash > /etc/bash_completion.d/imgwire-gate
    Completions {
        /// The shell
        shell: Shell,
    },
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

/// Runs the command line with the gate that `builder` makes.
pub fn run(builder: Builder) -> ExitCode {
    let Arguments {
        config,
        watch,
        command,
    } = Arguments::parse();
    let config = Config {
        path: config,
        builder: Arc::new(builder),
    };
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(&config, watch),
        Command::Check { connect } => check::check(&config, connect),
        Command::Sandbox => sandbox::sandbox(&config.builder),
        Command::Health => health::health(&config),
        Command::Schema => schema(&config.builder),
        Command::Openapi => openapi(),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "imgwire-gate", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Explain { request } => explain::explain(&config, &request),
        Command::Test { cases } => explain::test(&config, &cases),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Where to look for the config file without `--config`.
const DEFAULT_CONFIGS: [&str; 2] = ["config/default.toml", "/etc/imgwire-gate/config.toml"];

enum Failure {
    /// The config file is faulty: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    Other {
        text: String,
        hint: Option<&'static str>,
    },
}

impl Failure {
    fn other(error: impl fmt::Display) -> Self {
        Self::Other {
            text: error.to_string(),
            hint: None,
        }
    }

    fn start(error: StartError) -> Self {
        Self::Other {
            hint: error.hint(),
            text: error.to_string(),
        }
    }

    /// Writes the failure to standard error, in colour only on a terminal, and returns the exit code.
    fn report(self) -> ExitCode {
        const LOUD: Style = AnsiColor::Red.on_default().bold();
        const QUIET: Style = AnsiColor::Cyan.on_default();

        let (code, text) = match self {
            Self::Config(text) => {
                let lines = text.lines().map(|line| match line.split_once(": ") {
                    Some((place, message)) => format!("{LOUD}{place}{LOUD:#}: {message}\n"),
                    None => format!("{line}\n"),
                });
                (2, lines.collect())
            }
            Self::Other { text, hint } => {
                let mut lines = format!("{LOUD}imgwire-gate{LOUD:#}: {text}\n");
                if let Some(hint) = hint {
                    lines.push_str(&format!("{QUIET}what to do{QUIET:#}: {hint}\n"));
                }
                (1, lines)
            }
        };
        // Standard error may be closed.
        let _ = write!(anstream::stderr(), "{text}");
        ExitCode::from(code)
    }
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
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(Failure::other)
}

struct Config {
    path: Option<PathBuf>,
    builder: Arc<Builder>,
}

impl Config {
    /// The file that the command line names, or the first default that exists.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let mut defaults = DEFAULT_CONFIGS.iter().map(PathBuf::from);
        defaults.find(|path| path.exists()).ok_or_else(|| {
            let [first, second] = DEFAULT_CONFIGS;
            Failure::Config(format!(
                "there is no config file: neither {first} nor {second}; name one with --config, or try \
                 `imgwire-gate sandbox`, which needs none"
            ))
        })
    }

    fn load(&self) -> Result<Settings, Failure> {
        let path = self.path()?;
        load_text(&self.builder, &path, &read(&path)?, &process_environment)
    }
}

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
    environment: config::Environment<'_>,
) -> Result<Settings, Failure> {
    builder
        .load(&path.display().to_string(), text, environment)
        .map_err(|faults| Failure::Config(faults.to_string()))
}
