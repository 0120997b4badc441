//! Where the text of the config comes from.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::files;

/// Names a config file.
pub const PATH_VARIABLE: &str = "IMGWIRE_GATE_CONFIG";

/// Holds a whole config.
pub const TEXT_VARIABLE: &str = "IMGWIRE_GATE_CONFIG_TOML";

/// The config files to try if nothing names another source.
pub const DEFAULT_PATHS: [&str; 2] = ["config/default.toml", "/etc/imgwire-gate/config.toml"];

/// Where the text of the config comes from. `Display` writes its name in messages: the path, `<stdin>`, or the name of
/// the environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    File(PathBuf),
    /// Standard input, which can be read only once.
    Stdin,
    /// The environment variable [`TEXT_VARIABLE`], which never changes while the process runs.
    Environment,
}

/// No source is named, and no default file exists.
#[derive(Debug, thiserror::Error)]
#[error(
    "no config found: neither {} nor {} exists; pass a file with --config, or a whole config in the environment variable \
     {TEXT_VARIABLE}, or run `imgwire-gate sandbox`, which needs none",
    DEFAULT_PATHS[0],
    DEFAULT_PATHS[1]
)]
pub struct NoSource;

impl ConfigSource {
    /// The source that the command line names, else the one that the environment names, else the first default file that
    /// exists. Of the two variables, the one with the whole config counts, because images set the other one. An empty
    /// variable counts as unset.
    pub fn find(
        argument: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoSource> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(path) = argument {
            Ok(Self::named(path))
        } else if variable(TEXT_VARIABLE).is_some() {
            Ok(Self::Environment)
        } else if let Some(path) = variable(PATH_VARIABLE) {
            Ok(Self::named(path.into()))
        } else {
            let mut defaults = DEFAULT_PATHS.iter().map(PathBuf::from);
            let found = defaults.find(|path| path.exists());
            found.map(Self::File).ok_or(NoSource)
        }
    }

    /// `-` is standard input.
    #[must_use]
    pub fn named(path: PathBuf) -> Self {
        if path == Path::new("-") {
            Self::Stdin
        } else {
            Self::File(path)
        }
    }

    /// The file, which is the only source that can change while the process runs.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdin | Self::Environment => None,
        }
    }

    pub fn read(&self) -> io::Result<String> {
        match self {
            Self::File(path) => files::read_text(path),
            Self::Stdin => {
                let mut bytes = Vec::new();
                let input = io::stdin().lock().take(files::MAX_TEXT + 1);
                { input }.read_to_end(&mut bytes)?;
                files::text(bytes)
            }
            Self::Environment => {
                let text = std::env::var_os(TEXT_VARIABLE).unwrap_or_default();
                files::text(text.into_encoded_bytes())
            }
        }
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("<stdin>"),
            Self::Environment => f.write_str(TEXT_VARIABLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(argument: Option<&str>, variables: &[(&str, &str)]) -> String {
        let variable = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| OsString::from(value))
        };
        match ConfigSource::find(argument.map(PathBuf::from), variable) {
            Ok(source) => source.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_wins_then_the_whole_config_then_the_path() {
        let (text, path) = ((TEXT_VARIABLE, "[imgwire]"), (PATH_VARIABLE, "b.toml"));
        assert_eq!(find(Some("a.toml"), &[text, path]), "a.toml");
        assert_eq!(find(Some("-"), &[text, path]), "<stdin>");
        assert_eq!(find(None, &[text, path]), TEXT_VARIABLE);
        assert_eq!(find(None, &[path]), "b.toml");
        assert_eq!(find(None, &[(PATH_VARIABLE, "-")]), "<stdin>");
        assert_eq!(find(None, &[(TEXT_VARIABLE, ""), path]), "b.toml");
    }
}
