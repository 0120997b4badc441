//! `[identities.*]` as the config has it.

use std::sync::Arc;

use policies::IdentityName;

use super::{
    profile::Profiles,
    registry::{IdentitySettings, ResolvedIdentity},
    section::{Section, SectionFacts},
};
use crate::config::document::Reader;

/// The identities of a config file, in its order, each with what could be read of it.
pub(crate) struct ConfiguredIdentities(Vec<(IdentityName, Option<Arc<dyn IdentitySettings>>)>);

impl FromIterator<(IdentityName, Option<Arc<dyn IdentitySettings>>)> for ConfiguredIdentities {
    fn from_iter<I>(identities: I) -> Self
    where
        I: IntoIterator<Item = (IdentityName, Option<Arc<dyn IdentitySettings>>)>,
    {
        Self(identities.into_iter().collect())
    }
}

impl ConfiguredIdentities {
    /// What the checks of other sections need to know of them.
    pub(crate) fn profiles(&self) -> Profiles<'_> {
        let profiles = self.0.iter().map(|(name, settings)| {
            let settings = settings.as_ref();
            (name, settings.map(|settings| settings.profile()))
        });
        Profiles(profiles.collect())
    }

    /// Checks each identity and loads its secrets. `None` if any has a fault.
    pub(crate) fn resolve(
        &self,
        reader: &mut Reader,
        facts: SectionFacts<'_>,
    ) -> Option<Vec<(IdentityName, ResolvedIdentity)>> {
        let profiles = self.profiles();
        let resolved = self.0.iter().map(|(name, settings)| {
            let mut section = Section {
                reader,
                path: format!("identities.{name}"),
                facts,
                profiles: &profiles,
            };
            let resolved = ResolvedIdentity::new(settings.clone()?, &mut section)?;
            Some((name.clone(), resolved))
        });
        // Each is looked at, whatever is wrong with the others.
        let resolved: Vec<_> = resolved.collect();
        resolved.into_iter().collect()
    }
}
