//! `storage`: the bytes and the images that are held now. Deleting an image frees its part.
//!
//! The policy counts nothing itself. It denies an upload that does not fit now, so that the chain stops there, and says
//! what an upload takes of which counter. The store takes it in the transaction that records the upload, and checks again
//! whether it fits. So what is counted equals what is recorded, after every crash, and uploads at the same time do not
//! exceed a limit together.

use std::{num::NonZeroU32, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    BoxFuture, BuildContext, BuildError, ByteAmount, Counter, Decision, Denial, DenialClass, Fact,
    Facts, Fault, Findings, LimitSetting, Pass, PerHolder, Policy, PolicyInput, PolicyKind,
    PolicyName, Reads, Requirements, StorageCharge, StorageCounters, StorageLimits, StorageState,
    StorageStore, StorageUsed, StoreName, StoreUse, SubjectId, Verdict, WorkspaceId,
};

/// At most so many bytes and images are held. Only for routes with `action = "upload"`. `max_bytes` or `max_images` is
/// required.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// What to count by: `user`, `workspace` or both. `[]` counts all images together.
    pub per: PerHolder,
    /// The most bytes, for example `"5GB"`. Default: none; bytes are not limited.
    #[serde(default)]
    pub max_bytes: Option<LimitSetting<ByteAmount>>,
    /// The most images. Default: none; the number of images is not limited.
    #[serde(default)]
    pub max_images: Option<LimitSetting<u64>>,
    /// The most open uploads: those whose file has not arrived, or is not processed yet. Default: 20.
    #[serde(default = "default_max_open")]
    pub max_open: NonZeroU32,
    /// The store that counts: the `store` of the routes that use the policy, because it counts when it records an upload.
    pub store: StoreName,
}

fn default_max_open() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(19)
}

impl PolicyKind for StorageSettings {
    const NAME: &'static str = "storage";

    fn describe(&self) -> String {
        let bytes = self.max_bytes.as_ref().map(ToString::to_string);
        let images = self.max_images.as_ref().map(|limit| match limit.claim() {
            Some(claim) => format!("the number of images for the claim {claim}"),
            None => format!("{limit} images"),
        });
        let most: Vec<_> = bytes.into_iter().chain(images).collect();
        let (most, open, per, store) = (most.join(", "), self.max_open, &self.per.0, &self.store);
        format!("at most {most} and {open} open uploads {per}, counted in {store}")
    }

    fn requirements(&self) -> Requirements {
        let (bytes, images) = (self.max_bytes.as_ref(), self.max_images.as_ref());
        let mut claims = bytes.map(LimitSetting::claims).unwrap_or_default();
        claims.merge(images.map(LimitSetting::claims).unwrap_or_default());
        let mut needs = self.per.0.needs();
        if claims != Reads::default() && !needs.contains(&Fact::Subject) {
            needs.insert(0, Fact::Subject);
        }
        Requirements {
            denies_with: DenialClass::Limited,
            needs,
            claims,
            per: Some(self.per.0.clone()),
            store: Some((self.store.clone(), StoreUse::Uploads)),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        if self.max_bytes.is_none() && self.max_images.is_none() {
            findings.fault("", "limits nothing; add `max_bytes` or `max_images`");
        }
        if self.max_bytes.as_ref().is_some_and(LimitSetting::is_zero) {
            findings.warning("max_bytes", "0 denies every upload; write at least \"1B\"");
        }
        if self.max_images.as_ref().is_some_and(LimitSetting::is_zero) {
            findings.warning("max_images", "0 denies every upload; write at least 1");
        }
    }

    fn build(&self, context: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(Storage {
            name: context.name.clone(),
            settings: self.clone(),
            store: context.ports.storage(&self.store)?,
        }))
    }
}

struct Storage {
    name: PolicyName,
    settings: StorageSettings,
    store: Arc<dyn StorageStore>,
}

/// The size of the smallest file. A file of an undescribed size has at least this one.
const SMALLEST: u64 = 1;

impl Storage {
    fn keyed(&self, key: String) -> Counter {
        Counter {
            policy: self.name.clone(),
            key,
        }
    }

    fn limits(&self, facts: &Facts) -> StorageLimits {
        let settings = &self.settings;
        StorageLimits {
            max_bytes: settings.max_bytes.as_ref().map(|limit| limit.of(facts)),
            max_images: settings.max_images.as_ref().map(|limit| limit.of(facts)),
            max_open: settings.max_open.get().into(),
        }
    }

    /// Says why a default limit applies, if one does.
    fn why_default(&self, facts: &Facts) -> Option<String> {
        let bytes = self.settings.max_bytes.as_ref();
        let images = self.settings.max_images.as_ref();
        bytes
            .and_then(|limit| limit.why_default(facts))
            .or_else(|| images.and_then(|limit| limit.why_default(facts)))
    }

    fn charge(&self, PolicyInput { request, facts, .. }: PolicyInput<'_>) -> StorageCharge {
        let per = &self.settings.per.0;
        StorageCharge {
            counter: self.keyed(per.key(request, facts)),
            limits: self.limits(facts),
            key: per.describe_key(request, facts),
            note: self.why_default(facts),
            is_enforced: true,
        }
    }

    async fn verdict(
        &self,
        charge: &StorageCharge,
        size: Option<u64>,
    ) -> Result<(Verdict, StorageUsed), Fault> {
        let used = self.store.storage_used(charge.counter.clone()).await?;
        let full = charge.check(used, size.unwrap_or(SMALLEST));
        let verdict = match (full, size) {
            (Some(mut full), _) => {
                full.asked = full.asked.and(size);
                Verdict::Deny(Denial::StorageFull(Box::new(full)))
            }
            (None, Some(_)) => Verdict::Allow,
            (None, None) => Verdict::Deny(UNDECLARED),
        };
        Ok((verdict, used))
    }

    async fn preview(&self, charge: StorageCharge, size: Option<u64>) -> Result<Decision, Fault> {
        let (verdict, used) = self.verdict(&charge, size).await?;
        let mut decision = Decision::from(verdict);
        decision.note = charge.note;
        Ok(decision.with_storage(StorageState {
            policy: self.name.clone(),
            limits: charge.limits,
            used,
        }))
    }
}

const UNDECLARED: Denial = Denial::FileRequired("the file's size");

impl StorageCounters for Storage {
    fn counter(&self, subject: &SubjectId, workspace: Option<&WorkspaceId>) -> Counter {
        let per = &self.settings.per.0;
        self.keyed(per.key_of(Some(subject), workspace, None))
    }

    fn used<'a>(&'a self, key: &str) -> BoxFuture<'a, StorageUsed> {
        self.store.storage_used(self.keyed(key.to_owned()))
    }
}

impl Policy for Storage {
    fn storage(&self) -> Option<&dyn StorageCounters> {
        Some(self)
    }

    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let size = input.request.file.as_ref().and_then(|file| file.size);
            match input.pass {
                // The first request has taken it.
                Pass::Repeat => Ok(Decision::from(Verdict::Allow)),
                Pass::Preview => self.preview(self.charge(input), size).await,
                Pass::Issue | Pass::Resume => {
                    let charge = self.charge(input);
                    let verdict = match size {
                        None => Verdict::Deny(UNDECLARED),
                        Some(_) if input.pass == Pass::Resume => Verdict::Allow,
                        // If the store fails now, it also fails when it counts.
                        Some(_) => match self.verdict(&charge, size).await {
                            Ok((verdict, _)) => verdict,
                            Err(_) => Verdict::Allow,
                        },
                    };
                    // If the policy only observes, what it would deny is counted, too.
                    Ok(Decision::from(verdict).with_charge(charge))
                }
            }
        })
    }
}
