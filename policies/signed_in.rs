//! `signed_in`: an identity vouches for the user.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    AcceptedIdentities, BoxFuture, BuildContext, BuildError, Decision, Denial, DenialClass, Fact,
    Findings, IdentityName, NewFact, Policy, PolicyInput, PolicyKind, Presented, Requirements,
    Verdict,
};

/// A user is signed in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedInSettings {
    /// Names of identities. The first one that a credential of the request addresses judges that credential.
    #[schemars(length(min = 1))]
    pub accept: Vec<IdentityName>,
}

impl PolicyKind for SignedInSettings {
    const NAME: &'static str = "signed_in";
    const CAN_FAIL: bool = false;

    fn describe(&self) -> String {
        let accepted: Vec<_> = self.accept.iter().map(IdentityName::as_str).collect();
        format!("someone is signed in by {}", accepted.join(", "))
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

/// The accepted identities judge the request's credential. An invalid credential is denied and never falls through to
/// another identity.
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
