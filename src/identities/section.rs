//! `[identities.<name>]` while the config is read.

use policies::SecretSource;
use secrecy::{SecretSlice, SecretString};

use super::{issuer::SubjectPrefix, profile::Profiles, request_view::TokenSource};
use crate::config::{
    ServiceUrl,
    document::{Reader, within},
    secret::{self, Environment, SecretEncoding},
    server::ServerSettings,
};

/// What an identity may need to know about other sections.
#[derive(Clone, Copy)]
pub(crate) struct OtherSections<'a> {
    /// `None` if `[server]` is unreadable.
    pub(crate) server: Option<&'a ServerSettings>,
    pub(crate) has_session: bool,
    pub(crate) environment: Environment<'a>,
}

/// The table of one identity: reports its faults and loads its secrets. Keys are relative to the table; an empty key is
/// the table itself.
pub struct Section<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) path: String,
    pub(super) others: OtherSections<'a>,
    /// All identities of the config.
    pub(super) profiles: &'a Profiles<'a>,
}

impl Section<'_> {
    /// Reports a fault. The message says what is wrong, and what to write instead.
    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.reader.fault(self.path_of(key), message);
    }

    /// Reports a setting that is valid but rarely intended.
    pub fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.reader.warning(self.path_of(key), message);
    }

    /// Whether `key` has a fault. An unreadable key is not a missing one.
    #[must_use]
    pub fn has_fault(&self, key: &str) -> bool {
        self.reader.has_fault(&self.path_of(key))
    }

    /// Loads a secret, which must have at least `min_bytes` bytes. Reports what is wrong with it.
    pub fn secret(
        &mut self,
        key: &str,
        source: &SecretSource,
        min_bytes: usize,
    ) -> Option<SecretString> {
        let path = self.path_of(key);
        secret::read(
            self.reader,
            self.others.environment,
            &path,
            source,
            min_bytes,
        )
    }

    /// Loads a secret that may have an encoding.
    pub(super) fn secret_bytes(
        &mut self,
        key: &str,
        source: &SecretSource,
        encoding: Option<SecretEncoding>,
        min_bytes: usize,
    ) -> Option<SecretSlice<u8>> {
        let path = self.path_of(key);
        let environment = self.others.environment;
        secret::read_bytes(self.reader, environment, &path, source, encoding, min_bytes)
    }

    /// Loads a document, such as a key in PEM.
    pub(super) fn document(&mut self, key: &str, source: &SecretSource) -> Option<SecretString> {
        let path = self.path_of(key);
        secret::read_document(self.reader, self.others.environment, &path, source)
    }

    /// Checks the URL of a service that receives credentials or sends keys: it must be https, except for loopback.
    pub fn check_https(&mut self, key: &str, url: &ServiceUrl, insecure_http: bool) {
        if !insecure_http && !url.is_private() {
            let message = "would send credentials or keys over plain http to another machine; write https, or allow it with `insecure_http = true`";
            self.fault(key, message);
        }
    }

    /// Checks the places of a token.
    pub fn check_from(&mut self, from: &[TokenSource], ambient: bool) {
        if from.is_empty() {
            self.fault("from", "must name at least one place");
        }
        self.check_ambient(ambient, from);
    }

    /// Checks `ambient`: browsers always send cookies by themselves.
    pub fn check_ambient(&mut self, ambient: bool, sources: &[TokenSource]) {
        let is_cookie = |source: &TokenSource| matches!(source, TokenSource::Cookie(_));
        if !ambient && sources.iter().any(is_cookie) {
            let message = "browsers send cookies by themselves; remove `ambient`, or read the cookie in another identity";
            self.fault("ambient", message);
        }
    }

    /// Checks the prefix of an identity whose credentials have no `iss`.
    pub fn check_literal_prefix(&mut self, prefix: &SubjectPrefix) {
        if prefix.has_issuer() {
            let message = "`{iss}` is only for tokens; write a literal prefix";
            self.fault("subject_prefix", message);
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        within(&self.path, key)
    }
}
