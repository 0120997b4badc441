//! How a command fails.

use std::{error::Error, fmt, io::Write as _, process::ExitCode};

use anstyle::{AnsiColor, Style};

use crate::{outbound::reason, server::StartError};

pub(super) enum Failure {
    /// The config file is invalid: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    Other {
        text: String,
        hint: Option<&'static str>,
    },
}

impl Failure {
    pub(super) fn other(error: impl fmt::Display) -> Self {
        Self::Other {
            text: error.to_string(),
            hint: None,
        }
    }

    /// Says why something that depends on the operating system failed, in words.
    pub(super) fn system(failure: impl fmt::Display, error: &(dyn Error + 'static)) -> Self {
        Self::other(format_args!("{failure}: {}", reason(error, "")))
    }

    pub(super) fn start(error: StartError) -> Self {
        Self::Other {
            hint: error.hint(),
            text: error.to_string(),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Config(text) | Self::Other { text, .. } => text,
        }
    }

    /// Writes the failure to standard error, in colour only on a terminal, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        const ERROR: Style = AnsiColor::Red.on_default().bold();
        const HINT: Style = AnsiColor::Cyan.on_default();

        let (code, text) = match self {
            Self::Config(text) => {
                let lines = text.lines().map(|line| match line.split_once(": ") {
                    Some((position, message)) => format!("{ERROR}{position}{ERROR:#}: {message}\n"),
                    None => format!("{line}\n"),
                });
                (2, lines.collect())
            }
            Self::Other { text, hint } => {
                let mut lines = format!("{ERROR}imgwire-gate{ERROR:#}: {text}\n");
                if let Some(hint) = hint {
                    lines.push_str(&format!("{HINT}hint{HINT:#}: {hint}\n"));
                }
                (1, lines)
            }
        };
        // Standard error may be closed.
        let _ = write!(anstream::stderr(), "{text}");
        ExitCode::from(code)
    }
}
