//! Finds out why a database cannot be opened, in words that say what to change. It opens nothing.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{self, Path},
};

use rusqlite::ErrorCode;
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
    process::{getegid, geteuid},
};

use super::file::{beside, is_gone};
use crate::stores::fault::{FileProblem, StoreFault};

/// What the gate does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It creates the file if there is none.
    Count,
    Read,
}

/// `None` if the file can be opened, as far as its type, its owner and its mode tell.
pub(super) fn find_problem(file: &Path, purpose: Purpose) -> Option<FileProblem> {
    let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().unwrap_or(Path::new("/"));
    match fs::metadata(&file) {
        Ok(metadata) => existing(&file, folder, &metadata, purpose),
        Err(error) if is_gone(&error) => missing(&file, folder, purpose),
        Err(_) => unreachable(folder),
    }
}

/// Why SQLite cannot use a file.
pub(super) fn open_fault(file: &Path, error: &rusqlite::Error) -> StoreFault {
    let code = error.sqlite_error_code();
    if code == Some(ErrorCode::NotADatabase) {
        return StoreFault::File(FileProblem {
            problem: format!("{} is not a SQLite database", file.display()),
            remedy: "name another file in `url`, or move this one away".to_owned(),
        });
    }
    let is_opening = matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly));
    let folder = path::absolute(file).ok().filter(|_| is_opening);
    let folder = folder.as_deref().and_then(Path::parent);
    if let Some(mut problem) =
        folder.and_then(|folder| refused(folder, WRITABLE_FOLDER, "create files in"))
    {
        problem.remedy = format!(
            "a database in WAL mode needs files beside it; start the app that writes it before the gate, or {}",
            problem.remedy
        );
        return problem.into();
    }
    StoreFault::Refused(error.to_string())
}

fn existing(
    file: &Path,
    folder: &Path,
    metadata: &Metadata,
    purpose: Purpose,
) -> Option<FileProblem> {
    let shown = file.display();
    if metadata.is_dir() {
        return Some(FileProblem {
            problem: format!("{shown} is a folder"),
            remedy: format!(
                "name a file in it, for example url = \"sqlite:{}\"",
                file.join("gate.db").display()
            ),
        });
    }
    if !metadata.is_file() {
        return Some(FileProblem {
            problem: format!("{shown} is not a regular file"),
            remedy: "name a file on a local disk in `url`".to_owned(),
        });
    }
    match purpose {
        Purpose::Read => refused(file, Access::READ_OK, "read"),
        Purpose::Count => {
            // SQLite creates other files beside it.
            let mut files = beside(file).into_iter().filter(|beside| beside.exists());
            refused(file, WRITABLE_FILE, "read and write")
                .or_else(|| refused(folder, WRITABLE_FOLDER, "create files in"))
                .or_else(|| files.find_map(|file| refused(&file, WRITABLE_FILE, "read and write")))
        }
    }
}

const WRITABLE_FILE: Access = Access::READ_OK.union(Access::WRITE_OK);

/// A folder in which files can be created.
const WRITABLE_FOLDER: Access = Access::WRITE_OK.union(Access::EXEC_OK);

fn missing(file: &Path, folder: &Path, purpose: Purpose) -> Option<FileProblem> {
    // A symbolic link to nothing is not missing itself.
    let is_link = fs::symlink_metadata(file).is_ok();
    if purpose == Purpose::Read {
        let what = if is_link {
            "is a symbolic link to a file that does not exist"
        } else {
            "does not exist"
        };
        return Some(FileProblem {
            problem: format!("{} {what}", file.display()),
            remedy: format!(
                "correct the path in `url`, or create the database; a relative path starts at the working directory, {}",
                working_directory()
            ),
        });
    }
    // The nearest folder that exists. The gate creates those below it.
    let mut folders = folder.ancestors();
    let nearest = folders.find(|folder| fs::symlink_metadata(folder).is_ok())?;
    if !nearest.is_dir() {
        return Some(FileProblem {
            problem: format!("{} is not a folder", nearest.display()),
            remedy: "correct the path in `url`".to_owned(),
        });
    }
    let mut problem = refused(nearest, WRITABLE_FOLDER, "create files in")?;
    if nearest != folder && !is_read_only(nearest) {
        let (user, folder) = (geteuid().as_raw(), folder.display());
        problem.remedy = format!("create the folder: `install -d -o {user} {folder}`");
    }
    Some(problem)
}

/// A folder on the way may not be entered.
fn unreachable(folder: &Path) -> Option<FileProblem> {
    let mut folders: Vec<_> = folder.ancestors().collect();
    folders.reverse();
    let mut folders = folders.into_iter();
    folders.find_map(|folder| refused(folder, Access::EXEC_OK, "enter"))
}

/// `None` if the user that runs the gate may do this with `path`.
fn refused(path: &Path, access: Access, verb: &str) -> Option<FileProblem> {
    let error = accessat(CWD, path, access, AtFlags::EACCESS).err()?;
    let (user, group, shown) = (geteuid().as_raw(), getegid().as_raw(), path.display());
    if error == Errno::ROFS {
        return Some(FileProblem {
            problem: format!("{shown} is on a file system that is mounted read-only"),
            remedy: "mount it read-write, or name a file elsewhere in `url`".to_owned(),
        });
    }
    if error != Errno::ACCESS {
        // The kernel cannot tell. Opening the file will.
        return None;
    }
    let owner = fs::metadata(path).map(|metadata| {
        format!(
            " (owner {}, group {}, mode {:04o})",
            metadata.uid(),
            metadata.gid(),
            metadata.mode() & 0o7777
        )
    });
    Some(FileProblem {
        problem: format!(
            "the gate runs as user {user} (group {group}), which cannot {verb} {shown}{}",
            owner.unwrap_or_default()
        ),
        remedy: format!(
            "run `chown {user} {shown}`, or run the gate as the owner, or change the mode"
        ),
    })
}

fn is_read_only(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ROFS)
}

fn working_directory() -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    folder.display().to_string()
}
