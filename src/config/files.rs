//! The files that a config names, so that the gate notices when one changes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

/// How much of a file is compared. Secrets, keys and certificates are smaller.
const MAX_COMPARED: usize = 1 << 20;

/// The files of a config with the states in which they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFiles(Vec<(PathBuf, FileState)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    /// The length and the digest of the content, because the content may be a secret.
    Content(usize, Vec<u8>),
    Unreadable(io::ErrorKind),
    /// No regular file: a pipe, for example, which can be read only once.
    Special,
}

impl FileState {
    fn of(path: &Path, read: &io::Result<Vec<u8>>) -> Self {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Self::Special;
        }
        match read {
            Ok(bytes) => {
                let compared = bytes.get(..MAX_COMPARED).unwrap_or(bytes);
                Self::Content(bytes.len(), digest(&SHA256, compared).as_ref().to_vec())
            }
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    fn now(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => Self::Special,
            // Reading follows every link, so it does not matter how a file is replaced.
            _ => Self::of(path, &fs::read(path)),
        }
    }
}

impl ReadFiles {
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let read = fs::read(path);
        if self.0.iter().all(|(other, _)| other != path) {
            self.0.push((path.to_owned(), FileState::of(path, &read)));
        }
        read
    }

    /// The same files in their current states.
    #[must_use]
    pub fn now(&self) -> Self {
        let files = self.0.iter();
        let files = files.map(|(path, _)| (path.clone(), FileState::now(path)));
        Self(files.collect())
    }

    /// The files whose states differ from those in `earlier`, which has the same files.
    pub fn changed<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a Path> {
        let pairs = self.0.iter().zip(&earlier.0);
        let changed = pairs.filter(|(now, before)| now != before);
        changed.map(|((path, _), _)| path.as_path())
    }

    /// Adds the files of `others`.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for (path, state) in &others.0 {
            if self.0.iter().all(|(own, _)| own != path) {
                self.0.push((path.clone(), state.clone()));
            }
        }
        self
    }
}
