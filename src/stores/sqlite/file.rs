//! Which file a path names, and the lock on a file of counters.
//!
//! The lock is on the database file itself (`flock`), so it cannot be removed separately, and it holds whatever path leads
//! to the file. SQLite uses other locks (`fcntl`), which it does not disturb.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{self, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use crate::{
    outbound::reason,
    stores::{fault::OpenError, file_id::FileId},
};

/// How often to check which file a path names.
pub(super) const CHECK_PERIOD: Duration = Duration::from_millis(500);

/// The files that SQLite keeps beside a database: the write-ahead log, and its index.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        beside.into()
    })
}

/// A database file and its log as they are now. Every change of the file itself changes it. A write to the log does not, but
/// SQLite notices that by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) id: FileId,
    size: u64,
    modified: Option<SystemTime>,
    log: Option<FileId>,
}

impl Snapshot {
    /// `None` if there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let [log, _] = beside(path);
        Some(Self {
            id: FileId::of(&metadata),
            size: metadata.len(),
            modified: metadata.modified().ok(),
            log: FileId::at(&log),
        })
    }
}

/// Why a database that is open cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileFault {
    #[error(
        "{0} was deleted or moved, or its folder or file system is gone; put the same file back, or restart the gate to \
         begin with an empty one"
    )]
    Gone(String),
    #[error(
        "{0} is another file now; put the earlier file back, or reload (SIGHUP) or restart the gate to count in this one"
    )]
    Replaced(String),
    #[error(
        "{0} was truncated or overwritten in place; stop the gate, restore the file from a backup, and start the gate"
    )]
    Damaged(String),
    #[error("{0} was deleted or replaced; the gate writes it again")]
    BesideGone(String),
    #[error("{path}: {reason}")]
    Unreadable { path: String, reason: String },
}

/// A database file that only this process opens for counters, until this is dropped.
pub(super) struct OwnedFile {
    /// As configured, from the root. What it names can change.
    name: PathBuf,
    id: FileId,
    file: Arc<File>,
    is_damaged: AtomicBool,
}

/// A file that this process has locked before.
struct Descriptor {
    id: FileId,
    file: Arc<File>,
    is_locked: bool,
}

/// They stay open. If a process closes any descriptor of a file, it loses all of its `fcntl` locks on it, which SQLite
/// relies on.
static DESCRIPTORS: Mutex<Vec<Descriptor>> = Mutex::new(Vec::new());

/// How often to try again if the file is replaced at the same moment.
const TRIES: usize = 3;

impl OwnedFile {
    /// Creates the file if there is none.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        let io = |source| OpenError::Io {
            path: shown.clone(),
            source,
        };
        let name = path::absolute(path).map_err(io)?;
        let mut descriptors = DESCRIPTORS.lock();
        // Nothing else can open a file that has no name.
        descriptors.retain(|open| {
            let has_name = |metadata: Metadata| metadata.nlink() > 0;
            open.is_locked || open.file.metadata().is_ok_and(has_name)
        });
        for _ in 0..TRIES {
            let index = match descriptor(&mut descriptors, &name) {
                Ok(index) => index,
                Err(error) => return Err(io(error)),
            };
            let open = &mut descriptors[index];
            if open.is_locked {
                return Err(OpenError::InUse(shown));
            }
            match open.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(shown)),
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
            if FileId::at(&name) == Some(open.id) {
                open.is_locked = true;
                return Ok(Self {
                    name,
                    id: open.id,
                    file: open.file.clone(),
                    is_damaged: AtomicBool::new(false),
                });
            }
            open.file.unlock().map_err(io)?;
        }
        let replaced = "the file is replaced again and again";
        Err(io(io::Error::other(replaced)))
    }

    pub(super) fn shown(&self) -> String {
        self.name.display().to_string()
    }

    /// The path that SQLite uses, without symbolic links.
    pub(super) fn real_path(&self) -> io::Result<PathBuf> {
        fs::canonicalize(&self.name)
    }

    /// Fails if the path no longer names this file. Opens nothing. Returns the size of the file.
    pub(super) fn check(&self) -> Result<u64, FileFault> {
        if self.is_damaged.load(Ordering::Relaxed) {
            return Err(FileFault::Damaged(self.shown()));
        }
        match fs::metadata(&self.name) {
            Ok(metadata) if FileId::of(&metadata) == self.id => Ok(metadata.len()),
            Ok(_) => Err(FileFault::Replaced(self.shown())),
            Err(error) if is_gone(&error) => Err(FileFault::Gone(self.shown())),
            Err(error) => Err(FileFault::Unreadable {
                path: self.shown(),
                reason: reason(&error, ""),
            }),
        }
    }

    /// Fails if the file does not begin like a database with a write-ahead log, as it does while SQLite has it open.
    pub(super) fn check_header(&self) -> Result<(), FileFault> {
        let mut header = [0; 20];
        let read = self.file.read_exact_at(&mut header, 0);
        // The read and write versions are 2.
        if read.is_ok() && header.starts_with(b"SQLite format 3\0") && header.ends_with(&[2, 2]) {
            return Ok(());
        }
        Err(self.mark_damaged())
    }

    /// Counters are lost, so the file is not used again.
    pub(super) fn mark_damaged(&self) -> FileFault {
        self.is_damaged.store(true, Ordering::Relaxed);
        FileFault::Damaged(self.shown())
    }

    /// Whether the path names another file.
    pub(super) fn is_replaced(&self) -> bool {
        FileId::at(&self.name).is_some_and(|id| id != self.id)
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        let mut descriptors = DESCRIPTORS.lock();
        let mut locked = descriptors.iter_mut().filter(|open| open.is_locked);
        if let Some(open) = locked.find(|open| open.id == self.id) {
            // The end of the process unlocks it, too.
            let _ = open.file.unlock();
            open.is_locked = false;
        }
    }
}

/// The descriptor of the file `name`, which is opened unless it is open already.
fn descriptor(descriptors: &mut Vec<Descriptor>, name: &Path) -> io::Result<usize> {
    let find = |descriptors: &[Descriptor], id| descriptors.iter().position(|open| open.id == id);
    if let Some(id) = FileId::at(name)
        && let Some(index) = find(descriptors, id)
    {
        return Ok(index);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // As SQLite creates it.
        .mode(0o644)
        .open(name)?;
    descriptors.push(Descriptor {
        id: FileId::of(&file.metadata()?),
        file: Arc::new(file),
        is_locked: false,
    });
    Ok(descriptors.len() - 1)
}

/// Whether nothing has this name. A folder on the way that is now a file counts, too.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
