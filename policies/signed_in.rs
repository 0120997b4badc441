//! `signed_in`: an identity vouches for the user.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Accept, Deciding, Decision, Denial, Evaluating, Finding, IdentityName, Policy, Presented,
    Verdict,
};

/// Settings of `kind = "signed_in"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedInSettings {
    /// Names of identities. The first one that a credential of the request addresses judges that credential.
    #[schemars(length(min = 1))]
    pub accept: Vec<IdentityName>,
}

/// Lets the accepted identities judge the request's credential. A bad credential is refused and never falls through
/// to another identity.
pub struct SignedIn {
    accept: Accept,
}

impl SignedIn {
    /// Builds the policy.
    #[must_use]
    pub fn new(accept: Accept) -> Self {
        Self { accept }
    }
}

impl Policy for SignedIn {
    fn decide<'a>(&'a self, evaluating: Evaluating<'a>) -> Deciding<'a> {
        Box::pin(async move {
            let presented = evaluating.request.credentials.judge(&self.accept).await?;
            Ok(match presented {
                Presented::Nothing => Decision::from(Verdict::Deny(Denial::NotSignedIn)),
                Presented::Refused(denial) => Decision::from(Verdict::Deny(denial)),
                Presented::Subject(subject) => {
                    Decision::from(Verdict::Allow).with_finding(Finding::Subject(subject))
                }
            })
        })
    }
}
