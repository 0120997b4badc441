//! `[identities.*]` as the config has it: what each needs, and what is wrong with each.

use std::sync::Arc;

use policies::IdentityName;

use super::{
    kind::Profile,
    registry::{IdentitySettings, ResolvedIdentity},
    section::Section,
};
use crate::settings::{Environment, ServerSettings, document::Reader};

/// The identities of a config file, in its order.
pub(crate) struct ConfiguredIdentities(Vec<(IdentityName, Option<Arc<dyn IdentitySettings>>)>);

/// What an identity may need to know of the other sections.
#[derive(Clone, Copy)]
pub(crate) struct SectionFacts<'a> {
    /// `[server]`, if it could be read.
    pub(crate) server: Option<&'a ServerSettings>,
    pub(crate) has_session: bool,
    pub(crate) environment: Environment<'a>,
}

impl ConfiguredIdentities {
    /// The identities, each with what could be read of it.
    pub(crate) fn new(
        identities: impl IntoIterator<Item = (IdentityName, Option<Arc<dyn IdentitySettings>>)>,
    ) -> Self {
        Self(identities.into_iter().collect())
    }

    /// Whether one may be a session: what could not be read may be one.
    pub(crate) fn may_have_session(&self) -> bool {
        self.0.iter().any(|(_, settings)| {
            let settings = settings.as_ref();
            settings.is_none_or(|settings| settings.profile().exchange.is_some())
        })
    }

    pub(crate) fn contains(&self, name: &IdentityName) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// The profile of an identity, if it is there and could be read.
    pub(super) fn profile(&self, name: &IdentityName) -> Option<Profile<'_>> {
        let (_, settings) = self.0.iter().find(|(other, _)| other == name)?;
        Some(settings.as_ref()?.profile())
    }

    /// Checks each identity and loads its secrets. `None` if any has a fault.
    pub(crate) fn resolve(
        &self,
        reader: &mut Reader,
        facts: SectionFacts<'_>,
    ) -> Option<Vec<(IdentityName, ResolvedIdentity)>> {
        let resolved = self.0.iter().map(|(name, settings)| {
            let mut section = Section {
                reader,
                path: format!("identities.{name}"),
                facts,
                identities: self,
            };
            let resolved = ResolvedIdentity::new(settings.clone()?, &mut section)?;
            Some((name.clone(), resolved))
        });
        // Each is looked at, whatever is wrong with the others.
        let resolved: Vec<_> = resolved.collect();
        resolved.into_iter().collect()
    }
}
