//! Which file a path leads to.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{self, Component, Path, PathBuf},
};

/// As many symbolic links as Linux follows.
const MAX_LINKS: u8 = 40;

/// Identifies a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// `None` if there is no such file, or if it cannot be found.
    pub(super) fn at(path: &Path) -> Option<Self> {
        Some(Self::of(&fs::metadata(path).ok()?))
    }
}

/// Equal for all paths of one file, whatever links lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilePlace {
    Existing(FileId),
    /// Where the file will be created.
    Missing(PathBuf),
}

impl FilePlace {
    pub(super) fn of(path: &Path) -> Self {
        if let Some(id) = FileId::at(path) {
            return Self::Existing(id);
        }
        let absolute = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self::Missing(resolve(&absolute, MAX_LINKS))
    }
}

/// Resolves symbolic links and `..` in an absolute path, parts of which may not exist.
fn resolve(path: &Path, links: u8) -> PathBuf {
    let mut real = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = real.pop(),
            component => {
                let next = real.join(component);
                real = match fs::read_link(&next) {
                    Ok(target) if links > 0 => resolve(&real.join(target), links - 1),
                    _ => next,
                };
            }
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_paths_of_a_file_are_equal_before_and_after_it_exists() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| FilePlace::of(&folder.path().join(path));
        symlink("data", folder.path().join("link")).expect("a link");
        symlink("data/gate.db", folder.path().join("file")).expect("a link");
        let paths = [
            "data/gate.db",
            "./data/../data/gate.db",
            "link/gate.db",
            "file",
        ];
        for path in paths {
            assert_eq!(at(path), at("data/gate.db"), "{path}");
            assert_ne!(at(path), at("data/other.db"), "{path}");
        }
        fs::create_dir(folder.path().join("data")).expect("a folder");
        assert!(paths.iter().all(|path| at(path) == at("data/gate.db")));
        fs::write(folder.path().join("data/gate.db"), "").expect("a file");
        fs::hard_link(
            folder.path().join("data/gate.db"),
            folder.path().join("data/hard.db"),
        )
        .expect("a link");
        for path in paths.into_iter().chain(["data/hard.db"]) {
            assert_eq!(at(path), at("data/gate.db"), "{path}");
        }
    }

    #[test]
    fn a_loop_of_links_has_an_end() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("b", folder.path().join("a")).expect("a link");
        symlink("a", folder.path().join("b")).expect("a link");
        assert_eq!(
            FilePlace::of(&folder.path().join("a")),
            FilePlace::of(&folder.path().join("a"))
        );
    }
}
