//! `[identities.<name>]` while it is read.

use policies::SecretSource;
use secrecy::SecretString;

use super::{credential::TokenSource, issuer::SubjectPrefix, profile::Profiles};
use crate::config::{
    ServiceUrl,
    document::{Reader, within},
    secret::{self, Environment},
    server::ServerSettings,
};

/// What an identity may need to know of the other sections.
#[derive(Clone, Copy)]
pub(crate) struct SectionFacts<'a> {
    /// `[server]`, if it could be read.
    pub(crate) server: Option<&'a ServerSettings>,
    pub(crate) has_session: bool,
    pub(crate) environment: Environment<'a>,
}

/// The table of one identity while it is read: takes its faults and loads its secrets. The keys are those of the table;
/// an empty key is the table itself.
pub struct Section<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) path: String,
    pub(super) facts: SectionFacts<'a>,
    /// All identities of the config.
    pub(super) profiles: &'a Profiles<'a>,
}

impl Section<'_> {
    /// Notes a fault. The message says what is wrong, and what to write instead.
    pub fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.reader.fault(self.path_of(key), message);
    }

    /// Notes what is valid but rarely meant.
    pub fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.reader.warning(self.path_of(key), message);
    }

    /// Whether a fault of `key` was noted. A key that could not be read is not a missing one.
    #[must_use]
    pub fn has_fault(&self, key: &str) -> bool {
        self.reader.has_fault(&self.path_of(key))
    }

    /// Loads a secret, which must have at least `least` bytes. Notes what is wrong with it.
    pub fn secret(
        &mut self,
        key: &str,
        source: &SecretSource,
        least: usize,
    ) -> Option<SecretString> {
        let path = self.path_of(key);
        secret::read(self.reader, self.facts.environment, &path, source, least)
    }

    /// Checks a URL that credentials or keys travel to or from: it must be https, except for loopback.
    pub fn check_private(&mut self, key: &str, url: &ServiceUrl, insecure_http: bool) {
        if !insecure_http && !url.is_private() {
            let message = "would carry credentials or keys over plain http to another machine; write https, or allow it with `insecure_http = true`";
            self.fault(key, message);
        }
    }

    /// Checks the places of an identity that looks for tokens.
    pub fn check_from(&mut self, from: &[TokenSource], ambient: bool) {
        if from.is_empty() {
            self.fault("from", "must name at least one place");
        }
        self.check_ambient(ambient, from);
    }

    /// Checks `ambient`: no identity can say that a browser does not send cookies by itself.
    pub fn check_ambient(&mut self, ambient: bool, sources: &[TokenSource]) {
        let is_cookie = |source: &TokenSource| matches!(source, TokenSource::Cookie(_));
        if !ambient && sources.iter().any(is_cookie) {
            let message = "browsers send cookies by themselves; leave `ambient` out, or read the cookie in an identity of \
                           its own";
            self.fault("ambient", message);
        }
    }

    /// Checks the prefix of an identity without tokens, which have an `iss`.
    pub fn check_literal(&mut self, prefix: &SubjectPrefix) {
        if prefix.takes_issuer() {
            let message = "`{iss}` is for tokens; write a literal prefix";
            self.fault("subject_prefix", message);
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        within(&self.path, key)
    }
}
