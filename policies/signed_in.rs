//! `signed_in`: the request carries a valid credential of an accepted identity.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, Decision, Denial, DenialClass, Fact,
    Findings, IdentityName, NewFact, Policy, PolicyInput, PolicyKind, Presented, Requirements,
    Verdict,
};

/// The user is signed in: an accepted identity confirms a credential of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedInSettings {
    /// The accepted identities. The first one that a credential of the request belongs to checks that credential.
    #[schemars(length(min = 1))]
    pub accept: Vec<IdentityName>,
}

impl PolicyKind for SignedInSettings {
    const NAME: &'static str = "signed_in";
    const CAN_FAIL: bool = false;

    fn describe(&self) -> String {
        let accepted: Vec<_> = self.accept.iter().map(IdentityName::as_str).collect();
        format!("the user is signed in by {}", accepted.join(", "))
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            denies_with: DenialClass::Unauthenticated,
            accept: self.accept.clone(),
            provides: Some(Fact::Subject),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        if self.accept.is_empty() {
            findings.fault("accept", "must name at least one identity");
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        let accept = context.ports.accept(&self.accept)?;
        Ok(Arc::new(SignedIn { accept }))
    }
}

/// An invalid credential is denied. It is never tried with another identity.
struct SignedIn {
    accept: AcceptedIdentities,
}

impl Policy for SignedIn {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let presented = input.request.credentials.authenticate(&self.accept).await?;
            Ok(match presented {
                Presented::Nothing => Decision::from(Verdict::Deny(Denial::NotSignedIn)),
                Presented::Refused(denial) => Decision::from(Verdict::Deny(denial)),
                Presented::Subject(subject) => {
                    Decision::from(Verdict::Allow).with_fact(NewFact::Subject(subject))
                }
            })
        })
    }
}
