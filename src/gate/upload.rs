//! Creates an upload: evaluates the chain, records the intent, asks Imgwire for the image, and names it in the record
//! before the client gets the answer. The work finishes even if the request that waits for it is dropped.

use std::{rc::Rc, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use policies::{
    Clock, Denial, Facts, Fault, ImageId, Pass, Permit, Reason, StorageCharge, SubjectId,
    Tolerated, WorkspaceId,
};

use super::{
    follow::next_read,
    idempotency::{KeySecret, MAX_POLLS, POLL_INTERVAL, SlotClaim},
    imgwire_call::{in_span, warn},
    outcome::{Details, Failure, Report, Success},
    rules::{Route, UploadRoute},
    upload_call::Upload,
};
use crate::{
    imgwire::{Client, CreatedUpload, ImgwireError, TraceContext},
    stores::{Begun, Earlier, Ending, FileFacts, Intent, Origin, RecordId, Replay},
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
    pub clock: &'a dyn Clock,
    pub context: &'a TraceContext,
    pub upload: &'a Upload,
}

/// An upload that Imgwire created, now or before, and that has a record.
struct Obtained {
    record: RecordId,
    upload: CreatedUpload,
    /// Whether its image was known before this request, so that limits have counted it.
    was_known: bool,
    is_repeated: bool,
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
        let (request, clock) = (&self.upload.request, self.clock);
        let (mut claim, mut earlier) = (None, None);
        if self.upload.idempotency_key.is_some() {
            // Only the owner can repeat an upload, so who that is must be known before the limits count.
            let access = &self.uploads.access;
            let permit = details
                .evaluate(access, request, Pass::Repeat, clock)
                .await?;
            details.tolerated.extend(permit.not_issued().await);
            let secret = self.secret().await?;
            let owner = Owner::of(&details.facts, self.uploads)?;
            if let Some(replay) = self.replay(secret, &owner) {
                claim = SlotClaim::wait(replay.slot).await;
                earlier = self.earlier(Some(replay)).await?;
            }
        }
        let pass = match &earlier {
            Some(earlier) if earlier.image.is_some() => {
                claim = None;
                Pass::Repeat
            }
            _ => Pass::Issue,
        };
        let chain = &self.route.chain;
        let permit = details.evaluate(chain, request, pass, clock).await?;
        let charges = permit.charges().into();
        let obtained = self.obtain(earlier, charges, details).await;
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
            if let Some(earlier) = earlier {
                let key = secret.imgwire_key(earlier.id);
                let call = earlier.call.clone();
                let call = call.unwrap_or_else(|| self.call(&key, details));
                let record = (earlier.id, self.clock.now());
                let intent = self.intent(record, &owner, replay, call, charges);
                return self.repeat(intent, earlier.image, details).await;
            }
            let (id, now) = RecordId::new(self.clock);
            let call = self.call(&secret.imgwire_key(id), details);
            let intent = self.intent((id, now), &owner, replay, call, charges.clone());
            let begun = self.uploads.records.begin(intent.clone()).await;
            match begun.map_err(Failure::Unrecorded)? {
                Begun::Recorded(tolerated) => {
                    let tolerated = tolerated.into_iter().map(|(policy, full)| Tolerated {
                        policy,
                        reason: Reason::Denial(Denial::StorageFull(Box::new(full))),
                    });
                    details.tolerated.extend(tolerated);
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
        self.complete(intent, &upload.image.id).await?;
        Ok(Obtained {
            record,
            upload,
            was_known: false,
            is_repeated: false,
        })
    }

    /// Asks for the upload of an earlier request once more. `known` is its image.
    ///
    /// If the image is deleted meanwhile, this creates another one, which has no record. So the call has an intent of its
    /// own, by which recovery finds that image even if the gate ends before it is deleted.
    async fn repeat(
        &self,
        intent: Arc<Intent>,
        known: Option<ImageId>,
        details: &mut Details,
    ) -> Result<Obtained, Failure> {
        let record = intent.id;
        let repetition = self.begin_repetition(&intent).await?;
        let upload = self.ask(repetition, &intent.call, details).await?;
        let image = &upload.image.id;
        match &known {
            // The first request may still be at work. The intent stays until that has ended, too.
            None => self.complete(intent, image).await?,
            Some(known) if known == image && !upload.image.is_deleted => {
                self.withdraw(repetition).await;
            }
            Some(known) => {
                if self.delete(image).await {
                    self.withdraw(repetition).await;
                }
                return Err(self.replaced(record, known).await);
            }
        }
        Ok(Obtained {
            record,
            upload,
            was_known: known.is_some(),
            is_repeated: true,
        })
    }

    /// Imgwire did not return the image of a key that it has seen. Either the image was deleted past the gate, or Imgwire
    /// does not honour the key.
    async fn replaced(&self, record: RecordId, known: &ImageId) -> Failure {
        let read = in_span("read image", self.context, async |context| {
            self.client.image(known, context).await
        });
        let is_gone = match read.await.result {
            Ok(image) => image.is_none_or(|image| image.is_deleted),
            Err(error) => return Failure::ImgwireFailed(error),
        };
        if !is_gone {
            let reason = "it describes another image, although the idempotency key is the same";
            let error = ImgwireError::InvalidResponse(reason.to_owned());
            return Failure::ImgwireFailed(error);
        }
        // The key is free now, so the client can try again.
        match self.forget(record).await {
            Ok(_) => {
                let reason = "the image of this idempotency key was deleted at Imgwire";
                Failure::ImgwireFailed(ImgwireError::InvalidResponse(reason.to_owned()))
            }
            Err(fault) => Failure::Unrecorded(fault),
        }
    }

    /// Names the image of an intent. If the record was settled otherwise meanwhile, the image has no owner.
    async fn complete(&self, intent: Arc<Intent>, image: &ImageId) -> Result<(), Failure> {
        let now = self.clock.now();
        let follow_at = next_read(now, now);
        let records = &self.uploads.records;
        let completed = records.complete(intent, image.clone(), follow_at).await;
        if completed.map_err(Failure::Unrecorded)? {
            return Ok(());
        }
        self.delete(image).await;
        let reason = "the upload took too long, and its image was deleted";
        Err(Failure::ImgwireFailed(ImgwireError::InvalidResponse(
            reason.to_owned(),
        )))
    }

    /// Makes the call of an intent.
    async fn ask(
        &self,
        intent: RecordId,
        call: &str,
        details: &mut Details,
    ) -> Result<CreatedUpload, Failure> {
        let asking = in_span("create upload", self.context, async |context| {
            self.client.create_upload(call, context).await
        });
        let outcome = asking.await;
        details.upstream = Some((outcome.attempts, outcome.took));
        if outcome.result.is_err() && !outcome.may_have_acted {
            // Otherwise recovery finds out what became of it.
            self.withdraw(intent).await;
        }
        outcome.result.map_err(Failure::ImgwireFailed)
    }

    /// Records that the call of an intent is about to be made again. Returns the id of the new intent, which charges
    /// nothing.
    async fn begin_repetition(&self, intent: &Intent) -> Result<RecordId, Failure> {
        let (id, _) = RecordId::new(self.clock);
        let repetition = Intent {
            id,
            replay: None,
            charges: Arc::default(),
            ..intent.clone()
        };
        let begun = self.uploads.records.begin(Arc::new(repetition)).await;
        begun.map(|_| id).map_err(Failure::Unrecorded)
    }

    async fn withdraw(&self, intent: RecordId) {
        if let Err(fault) = self.uploads.records.withdraw(intent).await {
            warn(self.context, &fault);
        }
    }

    /// Deletes an image that no client gets. Returns whether it is deleted.
    async fn delete(&self, image: &ImageId) -> bool {
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
    async fn forget(&self, record: RecordId) -> Result<bool, Fault> {
        let records = &self.uploads.records;
        let (now, none) = (self.clock.now(), Vec::new());
        records.delete(record, Ending::Deleted, now, none).await
    }

    async fn secret(&self) -> Result<&KeySecret, Failure> {
        let UploadRoute {
            secret, records, ..
        } = self.uploads;
        let of_store = secret.get_or_read(&**records).await;
        of_store.map_err(Failure::Unrecorded)
    }

    fn replay(&self, secret: &KeySecret, owner: &Owner) -> Option<Replay> {
        let key = self.upload.idempotency_key.as_ref()?;
        let workspace = owner.workspace.as_ref();
        Some(Replay {
            slot: secret.slot(&owner.subject, workspace, &self.route.path, key),
            parameters: self.upload.parameters(self.uploads),
        })
    }

    /// Finds the earlier upload with the key of the client. Waits if another gate is creating it, because that request counts
    /// for the limits.
    async fn earlier(&self, replay: Option<Replay>) -> Result<Option<Earlier>, Failure> {
        let Some(replay) = replay else {
            return Ok(None);
        };
        let mut polls = 0;
        loop {
            let earlier = self.uploads.records.replayed(replay.slot).await;
            let Some(earlier) = earlier.map_err(Failure::Unrecorded)? else {
                return Ok(None);
            };
            if earlier.parameters != replay.parameters {
                return Err(Failure::KeyReused);
            }
            if earlier.image.is_some() || polls == MAX_POLLS {
                return Ok(Some(earlier));
            }
            polls += 1;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
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
