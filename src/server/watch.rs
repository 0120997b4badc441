//! Reloads the config when the operator asks for it, or when one of its files changes.

use std::{convert::Infallible, future::pending, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Builder,
    reload::{ReloadError, Reloader},
    settings::Settings,
};
use crate::{
    config::{ConfigSource, Environment, ReadFiles},
    outbound::reason,
};

/// How often to read the files. Notifications of changes do not work on every file system.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A change counts as soon as two reads in a row agree, because a file may be in the middle of a write, or one of several
/// that belong together. A file that changes all the time counts after so many reads.
const MAX_UNSTABLE_READS: u32 = 10;

/// The pauses before a reload is tried again whose files were not there: the first, which doubles, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// The config of a running gate, with the files that it was read from.
pub struct ConfigWatch<'a> {
    pub builder: &'a Builder,
    pub environment: Environment<'a>,
    source: &'a ConfigSource,
    /// As it was read last.
    text: String,
    /// The config file, if there is one, and the files that the config names.
    files: ReadFiles,
}

/// A reload that failed for a reason that may go away by itself.
struct Retry {
    pause: Duration,
    error: String,
}

enum Cause {
    Signal,
    Changed(Vec<PathBuf>),
    Retry(Retry),
}

impl<'a> ConfigWatch<'a> {
    /// Reads the config of a gate that starts.
    pub fn new(
        source: &'a ConfigSource,
        builder: &'a Builder,
        environment: Environment<'a>,
    ) -> io::Result<Self> {
        let mut watch = Self {
            builder,
            environment,
            source,
            text: String::new(),
            files: ReadFiles::default(),
        };
        watch.text = match source.file() {
            None => source.read()?,
            Some(path) => watch.files.read_text(path)?,
        };
        Ok(watch)
    }

    pub fn load(&mut self) -> Result<Settings, ReloadError> {
        let name = self.source.to_string();
        let loaded = self.builder.load(&name, &self.text, self.environment);
        let named = match &loaded {
            Ok(settings) => &settings.files,
            Err(faults) => faults.files(),
        };
        self.files.add(named);
        Ok(loaded?)
    }

    /// Reads the files again. Standard input and the environment keep what they had.
    fn reload(&mut self) -> Result<Settings, ReloadError> {
        self.files = ReadFiles::default();
        if let Some(path) = self.source.file() {
            let read = self.files.read_text(path);
            self.text = read.map_err(|error| {
                let reason = reason(&error, "");
                ReloadError::Unreadable(format!("{}: {reason}", self.source))
            })?;
        }
        self.load()
    }

    /// Reloads on each signal and, with `watch`, on each change of a file.
    pub async fn run(
        mut self,
        reloader: Arc<Reloader>,
        hangup: impl AsyncFn(),
        watch: bool,
    ) -> Infallible {
        let mut retry: Option<Retry> = None;
        loop {
            let pause = retry.as_ref().map(|retry| retry.pause);
            let cause = tokio::select! {
                () = hangup() => Cause::Signal,
                changed = self.changed(), if watch => Cause::Changed(changed),
                () = wait(pause) => match retry.take() {
                    Some(retry) => Cause::Retry(retry),
                    None => continue,
                },
            };
            self.log(&cause);
            let loaded = self.reload();
            let earlier = match cause {
                Cause::Retry(retry) => Some(retry),
                Cause::Signal | Cause::Changed(_) => None,
            };
            let known = earlier.as_ref().map(|retry| &*retry.error);
            retry = match reloader.reload_again(loaded, known) {
                Err(error) if error.is_temporary() => Some(next(earlier, &error)),
                Ok(()) | Err(_) => None,
            };
        }
    }

    fn log(&self, cause: &Cause) {
        match cause {
            Cause::Changed(files) => {
                let files: Vec<_> = files
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                let files = files.join(", ");
                tracing::info!(files, "files of the config changed");
            }
            Cause::Signal if self.source.file().is_none() => {
                let config = self.source.to_string();
                tracing::info!(
                    config,
                    "the config itself cannot be read again, only the files that it names"
                );
            }
            Cause::Signal | Cause::Retry(_) => {}
        }
    }

    /// Returns the files that differ from what was loaded.
    async fn changed(&self) -> Vec<PathBuf> {
        let (mut previous, mut unstable_reads) = (self.files.clone(), 0);
        loop {
            sleep(POLL_INTERVAL).await;
            let files = previous.clone();
            // A network file system may hang.
            let Ok(now) = spawn_blocking(move || files.now()).await else {
                continue;
            };
            if now == self.files {
                unstable_reads = 0;
            } else if now == previous || unstable_reads == MAX_UNSTABLE_READS {
                let changed = now.changed(&self.files);
                return changed.map(|path| path.to_owned()).collect();
            } else {
                unstable_reads += 1;
            }
            previous = now;
        }
    }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => pending().await,
    }
}

fn next(earlier: Option<Retry>, error: &ReloadError) -> Retry {
    let error = error.to_string();
    let pause = match earlier {
        Some(earlier) if earlier.error == error => LAST_RETRY.min(earlier.pause * 2),
        _ => {
            tracing::warn!("the reload is tried again until the files of the config are there");
            FIRST_RETRY
        }
    };
    Retry { pause, error }
}
