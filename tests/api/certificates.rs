//! Certificates of an authority of its own, made by openssl.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub(crate) struct Authority {
    folder: TempDir,
    certificate: PathBuf,
    issued: Cell<u32>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("ca.pem");
        let authority = Self {
            certificate,
            folder,
            issued: Cell::new(0),
        };
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        authority
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A certificate and its key, for `name` and alternative names such as `IP:127.0.0.1`.
    pub(crate) fn issue(&self, name: &str, names: &str) -> (PathBuf, PathBuf) {
        let number = self.issued.get();
        self.issued.set(number + 1);
        let file = |end: &str| format!("{number}.{end}");
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {} -out {}",
            file("key"),
            file("csr")
        ));
        let extensions = format!("subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n");
        std::fs::write(self.folder.path().join(file("ext")), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -in {} -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {} -out {}",
            file("csr"),
            file("ext"),
            file("pem")
        ));
        let path = |end: &str| self.folder.path().join(file(end));
        (path("pem"), path("key"))
    }

    fn openssl(&self, arguments: &str) {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
}
