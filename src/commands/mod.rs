//! What each command does.

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

use imgwire_gate::settings::{self, Settings};

pub(crate) use self::{
    check::check,
    explain::{explain, test},
    health::health,
    sandbox::sandbox,
    serve::serve,
};

/// Where the config file is looked for, when nobody says.
const DEFAULT_CONFIGS: [&str; 2] = ["config/default.toml", "/etc/imgwire-gate/config.toml"];

/// Why a command failed.
pub(crate) enum Failure {
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
    pub(crate) fn report(self) -> ExitCode {
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
pub(crate) fn schema() -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&settings::schema()).map_err(Failure::other)?;
    print(&schema)
}

/// Writes a line to standard output.
fn print(line: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(Failure::other)
}

/// Reads the config file: the one that is named, or the first default that exists.
fn read(config: Option<PathBuf>) -> Result<(PathBuf, String), Failure> {
    let path = config
        .or_else(|| {
            let mut defaults = DEFAULT_CONFIGS.iter().map(PathBuf::from);
            defaults.find(|path| path.exists())
        })
        .ok_or_else(|| {
            let [first, second] = DEFAULT_CONFIGS;
            Failure::Config(format!(
                "there is no config file: neither {first} nor {second}; name one with --config"
            ))
        })?;
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::Config(format!("{}: {error}", path.display())))?;
    Ok((path, text))
}

/// Reads and checks the config file.
fn load(config: Option<PathBuf>) -> Result<Settings, Failure> {
    let (path, text) = read(config)?;
    load_text(&path, &text, &|name| std::env::var(name).ok())
}

fn load_text(
    path: &Path,
    text: &str,
    environment: settings::Environment<'_>,
) -> Result<Settings, Failure> {
    settings::load(&path.display().to_string(), text, environment)
        .map_err(|faults| Failure::Config(faults.to_string()))
}
