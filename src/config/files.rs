//! The files that a config names, so that the gate notices when one changes.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

use super::places::position;

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

/// A config is never as large as this.
pub(super) const MAX_TEXT: u64 = 4 << 20;

/// Why a file that the config names cannot be read, after "cannot be read: ".
pub(super) fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => without_number(&error.to_string()).to_owned(),
    }
}

/// Removes `(os error 111)`, with which texts of the operating system end.
pub(crate) fn without_number(text: &str) -> &str {
    text.split(" (os error").next().unwrap_or_default()
}

/// Reads a text that the operator wrote. The error says what to do.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    text(read_bounded(path)?)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::NotFound => "the file does not exist; check the path".to_owned(),
            io::ErrorKind::IsADirectory => "is a folder; write the path of a file".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "this user may not read the file; change its owner or its mode".to_owned()
            }
            _ => format!("cannot be read: {}", why_unreadable(&error)),
        };
        io::Error::new(error.kind(), message)
    })?;
    Ok(bytes)
}

/// Checks the text of a file.
pub(super) fn text(bytes: Vec<u8>) -> io::Result<String> {
    let invalid = |message| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    if bytes.len() as u64 > MAX_TEXT {
        return invalid("is larger than 4 MiB; write the path of a config file".to_owned());
    }
    String::from_utf8(bytes).or_else(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return invalid("is UTF-16; save the file as UTF-8".to_owned());
        }
        let before = String::from_utf8_lossy(&bytes[..valid]);
        let (line, column) = position(&before, valid);
        let byte = bytes.get(valid).copied().unwrap_or_default();
        invalid(format!(
            "line {line}, column {column}: the byte 0x{byte:02X} is not UTF-8; save the file as UTF-8"
        ))
    })
}

impl ReadFiles {
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let read = fs::read(path);
        let state = FileState::of(path, &read);
        self.record(path, state);
        read
    }

    pub fn read_text(&mut self, path: &Path) -> io::Result<String> {
        let read = read_bounded(path);
        let state = FileState::of(path, &read);
        self.record(path, state);
        text(read?)
    }

    /// Adds the files of `others`.
    pub fn add(&mut self, others: &Self) {
        for (path, state) in &others.0 {
            self.record(path, state.clone());
        }
    }

    /// A file that is read several times keeps its first state, so that a change between two reads counts as one.
    fn record(&mut self, path: &Path, state: FileState) {
        if self.0.iter().all(|(other, _)| other != path) {
            self.0.push((path.to_owned(), state));
        }
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
}
