//! Secrets: named in the config file, kept elsewhere.

use std::borrow::Cow;

pub use policies::SecretSource;
use secrecy::{ExposeSecret as _, SecretString};

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fetches a secret, which must have at least `least` bytes.
///
/// # Errors
///
/// What is wrong with it, in words that name the source and show nothing of the secret.
pub(super) fn load(
    from: &SecretSource,
    environment: Environment<'_>,
    least: usize,
) -> Result<SecretString, String> {
    let (source, text) = match from {
        SecretSource::Env(name) => {
            let text = environment(name)
                .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            (format!("the environment variable `{name}`"), text)
        }
        SecretSource::File(path) => {
            let path = path.display();
            let text = std::fs::read_to_string(path.to_string())
                .map_err(|error| format!("the file `{path}` cannot be read: {}", error.kind()))?;
            (format!("the file `{path}`"), text)
        }
    };
    let secret = SecretString::from(
        match from {
            SecretSource::Env(_) => Cow::Borrowed(text.as_str()),
            SecretSource::File(_) => {
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Cow::Borrowed(line.strip_suffix('\r').unwrap_or(line))
            }
        }
        .into_owned(),
    );
    let length = secret.expose_secret().len();
    if length == 0 {
        Err(format!("{source} is empty"))
    } else if length < least {
        Err(format!(
            "{source} is too short: it has {length} bytes, at least {least} are needed"
        ))
    } else {
        Ok(secret)
    }
}
