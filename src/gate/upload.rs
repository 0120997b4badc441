//! Creates an upload: evaluates the chain, records the intent, asks Imgwire for the image, and names it in the record
//! before the client gets the answer. The work finishes even if the request that waits for it is dropped.

use std::{rc::Rc, sync::Arc};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use policies::{
    Clock, Denial, Facts, Fault, ImageId, Pass, Permit, StorageCharge, SubjectId, WorkspaceId,
};

use super::{
    follow::next_read,
    idempotency::KeySecret,
    imgwire_call::{in_span, warn},
    outcome::{Details, Failure, Report, Success},
    rules::{Route, Rules, UploadRoute},
    upload_call::Upload,
};
use crate::{
    imgwire::{Client, CreatedUpload, ImgwireError, TraceContext},
    stores::{Begun, Completed, Earlier, Ending, FileFacts, Intent, Origin, RecordId, Replay},
};

/// How long the changes of a record may take, beyond the deadline of the call to Imgwire. If they take longer, recovery
/// may delete the image, and the request fails.
const MARGIN: SignedDuration = SignedDuration::from_secs(15);

/// Whose image it is.
pub(super) struct Owner {
    pub(super) subject: SubjectId,
    pub(super) workspace: Option<WorkspaceId>,
}

impl Owner {
    /// The config checks that the chain establishes who the owner is.
    pub(super) fn of(facts: &Facts, route: &UploadRoute) -> Result<Self, Failure> {
        let Some(subject) = &facts.subject else {
            return Err(Failure::Denied(None, Denial::NotSignedIn));
        };
        let workspace = facts.membership.as_ref();
        let workspace = workspace.map(|membership| membership.workspace.clone());
        if route.has_workspaces && workspace.is_none() {
            let reason = "no policy established a membership".to_owned();
            return Err(Failure::Denied(None, Denial::WorkspaceForbidden(reason)));
        }
        Ok(Self {
            subject: subject.id.clone(),
            workspace: workspace.filter(|_| route.has_workspaces),
        })
    }
}

/// A request for an upload.
pub struct Creation<'a> {
    pub route: &'a Route,
    pub uploads: &'a UploadRoute,
    pub client: &'a Rc<Client>,
    pub clock: &'a Arc<dyn Clock>,
    pub rules: &'a ArcSwap<Rules>,
    pub context: &'a TraceContext,
    pub upload: &'a Upload,
}

/// An upload that Imgwire created, now or before, and that has a record.
pub(super) struct Obtained {
    pub(super) record: RecordId,
    pub(super) upload: CreatedUpload,
    /// Whether another request has named its image, so that limits have counted it.
    pub(super) was_known: bool,
    pub(super) is_repeated: bool,
}

impl Creation<'_> {
    /// Creates the upload if every policy of the route allows it. Everything that was reserved is settled when this
    /// returns, so it must `run_to_completion` even if the client disconnects.
    pub async fn run(&self) -> Report {
        let mut details = Details::default();
        Report {
            outcome: self.create_or_repeat(&mut details).await,
            details,
        }
    }

    async fn create_or_repeat(&self, details: &mut Details) -> Result<Success, Failure> {
        let mut claim = None;
        let earlier = self.find_earlier(&mut claim, details).await;
        let pass = match &earlier {
            Ok(None) => Pass::Issue,
            Ok(Some(Earlier { image: None, .. })) => Pass::Resume,
            // Nothing is created, so only the limits of attempts count.
            Ok(Some(_)) | Err(_) => {
                claim = None;
                Pass::Repeat
            }
        };
        // The chain evaluates the policies of the lookup, too. What they tolerate is reported once.
        details.tolerated.clear();
        let (chain, request) = (&self.route.chain, &self.upload.request);
        // Denials are in the order of the chain, so they come before a failure of the lookup.
        let permit = details
            .evaluate(chain, request, pass, &**self.clock)
            .await?;
        let obtained = match earlier {
            Ok(earlier) => {
                let charges = permit.charges().into();
                self.obtain(earlier, charges, details).await
            }
            Err(failure) => Err(failure),
        };
        let settled = self.settle(permit, obtained, details).await;
        drop(claim);
        settled
    }

    async fn settle(
        &self,
        permit: Permit,
        obtained: Result<Obtained, Failure>,
        details: &mut Details,
    ) -> Result<Success, Failure> {
        let obtained = match obtained {
            Ok(obtained) if !obtained.was_known => obtained,
            Err(failure @ Failure::Unrecorded(_)) if details.upstream.is_some() => {
                // The image may be recorded nevertheless. Then a repeated key finds it, so it stays counted.
                if let Err((_, fault)) = permit.issued().await {
                    warn(self.context, &fault);
                }
                return Err(failure);
            }
            other => {
                details.tolerated.extend(permit.not_issued().await);
                return other.map(Obtained::into_success);
            }
        };
        match permit.issued().await {
            Ok(faults) => {
                details.tolerated.extend(faults);
                Ok(obtained.into_success())
            }
            Err((policy, fault)) => {
                // No limit has counted the image, so the client must not find it either.
                if self.delete(&obtained.upload.image.id).await
                    && let Err(fault) = self.forget(obtained.record).await
                {
                    warn(self.context, &fault);
                }
                Err(Failure::Faulted(policy, fault))
            }
        }
    }

    async fn obtain(
        &self,
        mut earlier: Option<Earlier>,
        charges: Arc<[StorageCharge]>,
        details: &mut Details,
    ) -> Result<Obtained, Failure> {
        let secret = self.secret().await?;
        let owner = Owner::of(&details.facts, self.uploads)?;
        let replay = self.replay(secret, &owner);
        loop {
            if let Some(Earlier {
                id, image, call, ..
            }) = earlier
            {
                let key = secret.imgwire_key(id);
                let call = call.unwrap_or_else(|| self.call(&key, details));
                let now = self.clock.now();
                let intent = self.intent((id, now), &owner, replay, call, charges.clone());
                match image {
                    Some(image) => return self.repeat(&intent, &image, details).await,
                    None => {
                        if let Some(obtained) = self.take_over(intent, details).await? {
                            return Ok(obtained);
                        }
                    }
                }
                earlier = self.earlier(replay).await?;
                continue;
            }
            let (id, now) = RecordId::new(&**self.clock);
            let call = self.call(&secret.imgwire_key(id), details);
            let intent = self.intent((id, now), &owner, replay, call, charges.clone());
            let begun = self.uploads.records.begin(intent.clone()).await;
            match begun.map_err(Failure::Unrecorded)? {
                Begun::Recorded(tolerated) => {
                    for (policy, full) in tolerated {
                        let denial = Denial::StorageFull(Box::new(full));
                        details.tolerate(policy, denial);
                    }
                    return self.create(intent, details).await;
                }
                Begun::Full(policy, full) => {
                    let denial = Denial::StorageFull(Box::new(full));
                    return Err(Failure::Denied(Some(policy), denial));
                }
                Begun::SlotTaken => {}
            }
            // A concurrent request with the same key was faster. If its upload fails, this one begins again.
            earlier = self.earlier(replay).await?;
        }
    }

    /// Creates the upload of an intent that was recorded.
    async fn create(
        &self,
        intent: Arc<Intent>,
        details: &mut Details,
    ) -> Result<Obtained, Failure> {
        let record = intent.id;
        let upload = self.ask(record, &intent.call, details).await?;
        let was_known = self.complete(intent, &upload.image.id).await?;
        Ok(Obtained {
            record,
            upload,
            was_known,
            is_repeated: false,
        })
    }

    /// Names the image of an intent. Returns whether another request had named it, so that limits have counted it.
    pub(super) async fn complete(
        &self,
        intent: Arc<Intent>,
        image: &ImageId,
    ) -> Result<bool, Failure> {
        let now = self.clock.now();
        let follow_at = next_read(now, now);
        let records = &self.uploads.records;
        let completed = records.complete(intent.clone(), image.clone(), follow_at);
        match completed.await.map_err(Failure::Unrecorded)? {
            Completed::Now => return Ok(false),
            Completed::Before => {
                let found = self.found(&intent).await?;
                if found.is_some_and(|earlier| earlier.image.as_ref() == Some(image)) {
                    return Ok(true);
                }
                // Recovery has named the image, and deletes it.
            }
            Completed::Never => {
                // The image has no record. If the gate ends before it is deleted, recovery finds it by this.
                let begun = self.begin_repetition(&intent).await;
                self.delete(image).await;
                begun?;
            }
        }
        let reason = "the upload took too long, and its image was deleted";
        Err(Failure::ImgwireFailed(ImgwireError::InvalidResponse(
            reason.to_owned(),
        )))
    }

    /// The upload that a repeated idempotency key finds.
    pub(super) async fn found(&self, intent: &Intent) -> Result<Option<Earlier>, Failure> {
        match &intent.replay {
            None => Ok(None),
            Some(replay) => {
                let found = self.uploads.records.replayed(replay.slot).await;
                found.map_err(Failure::Unrecorded)
            }
        }
    }

    /// Makes the call of an intent.
    pub(super) async fn ask(
        &self,
        intent: RecordId,
        call: &str,
        details: &mut Details,
    ) -> Result<CreatedUpload, Failure> {
        let asking = in_span("create upload", self.context, async |context| {
            self.client.create_upload(call, context).await
        });
        let outcome = asking.await;
        details.add_call(&outcome);
        if outcome.result.is_err() && !outcome.may_have_acted {
            // Otherwise recovery finds out what became of it.
            self.withdraw(intent).await;
        }
        outcome.result.map_err(Failure::ImgwireFailed)
    }

    pub(super) async fn withdraw(&self, intent: RecordId) {
        if let Err(fault) = self.uploads.records.withdraw(intent).await {
            warn(self.context, &fault);
        }
    }

    /// Deletes an image that no client gets. Returns whether it is deleted.
    pub(super) async fn delete(&self, image: &ImageId) -> bool {
        let deleting = in_span("delete image", self.context, async |context| {
            self.client.delete_image(image, context).await
        });
        let Err(error) = deleting.await.result else {
            return true;
        };
        tracing::error!(
            request_id = self.context.request_id.as_str(),
            image_id = image.as_str(),
            %error,
            "image not deleted"
        );
        false
    }

    /// Records that an image which no client got was deleted.
    pub(super) async fn forget(&self, record: RecordId) -> Result<bool, Fault> {
        let records = &self.uploads.records;
        let (now, none) = (self.clock.now(), Vec::new());
        records.delete(record, Ending::Deleted, now, none).await
    }

    pub(super) async fn secret(&self) -> Result<&KeySecret, Failure> {
        let UploadRoute {
            secret, records, ..
        } = self.uploads;
        let of_store = secret.get_or_read(&**records).await;
        of_store.map_err(Failure::Unrecorded)
    }

    pub(super) fn replay(&self, secret: &KeySecret, owner: &Owner) -> Option<Replay> {
        let key = self.upload.idempotency_key.as_ref()?;
        let workspace = owner.workspace.as_ref();
        Some(Replay {
            slot: secret.slot(&owner.subject, workspace, &self.route.path, key),
            parameters: self.upload.parameters(self.uploads),
        })
    }

    fn call(&self, key: &str, details: &Details) -> Arc<str> {
        let (facts, context) = (&details.facts, self.context);
        self.upload.call(self.uploads, key, facts, context)
    }

    fn intent(
        &self,
        (id, now): (RecordId, Timestamp),
        owner: &Owner,
        replay: Option<Replay>,
        call: Arc<str>,
        charges: Arc<[StorageCharge]>,
    ) -> Arc<Intent> {
        let request = &self.upload.request;
        let file = request.file.as_ref();
        let deadline = SignedDuration::try_from(self.client.deadline());
        let due_in = deadline
            .unwrap_or(SignedDuration::MAX)
            .saturating_add(MARGIN);
        Arc::new(Intent {
            id,
            origin: Origin {
                subject: owner.subject.clone(),
                workspace: owner.workspace.clone(),
                route: self.route.path.clone(),
                purpose: request.purpose.clone(),
                declared: FileFacts {
                    mime_type: file.and_then(|file| file.mime_type.clone()),
                    size: file.and_then(|file| file.size),
                },
                created_at: now,
            },
            replay,
            call,
            charges,
            due_at: now.saturating_add(due_in).unwrap_or(Timestamp::MAX),
        })
    }
}

impl Obtained {
    fn into_success(self) -> Success {
        if self.is_repeated {
            Success::Repeated(self.upload)
        } else {
            Success::Created(self.upload)
        }
    }
}
