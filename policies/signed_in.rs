//! `signed_in`: someone is there, and an identity vouches for them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_spanned::Spanned;

use crate::{
    Deciding, Decision, Denial, Evaluating, Finding, IdentityName, Policy, Presented, Verdict,
};

/// Settings of `kind = "signed_in"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedInSettings {
    /// Names of identities; the first whose credential is present decides.
    #[schemars(with = "Vec<IdentityName>", length(min = 1))]
    pub accept: Vec<Spanned<IdentityName>>,
}

/// Asks the accepted identities in turn. The first whose credential is present decides: a bad one is
/// refused and never falls through to the next.
pub struct SignedIn {
    accept: Vec<IdentityName>,
}

impl SignedIn {
    /// Builds the policy.
    #[must_use]
    pub fn new(settings: &SignedInSettings) -> Self {
        Self {
            accept: settings
                .accept
                .iter()
                .map(|name| name.get_ref().clone())
                .collect(),
        }
    }
}

impl Policy for SignedIn {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(async move {
            for name in &self.accept {
                match evaluating.request.credentials.present(name).await? {
                    Presented::Nothing => {}
                    Presented::Refused(denial) => return Ok(Decision::from(Verdict::Deny(denial))),
                    Presented::Subject(subject) => {
                        let finding = Finding::Subject(subject);
                        return Ok(Decision::from(Verdict::Allow).with_finding(finding));
                    }
                }
            }
            Ok(Decision::from(Verdict::Deny(Denial::NotSignedIn)))
        })
    }
}
