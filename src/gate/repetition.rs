//! Repeats the upload of an earlier request with the same idempotency key.
//!
//! A repeated call may create a second image, because the first one may be deleted meanwhile. So each call has an intent of
//! its own, by which recovery finds that image, whatever becomes of the request.

use std::sync::Arc;

use policies::{ImageId, Pass};

use super::{
    idempotency::{Claim, MAX_POLLS, POLL_INTERVAL, digest_of},
    imgwire_call::in_span,
    observer::{ObserveError, Observer},
    outcome::{Details, Failure},
    upload::{Creation, Obtained, Owner},
};
use crate::{
    imgwire::ImgwireError,
    stores::{Earlier, Intent, RecordId, Replay},
};

impl Creation<'_> {
    /// Finds the earlier upload with the key of the client. Only its owner can repeat it, so who that is must be known
    /// before the limits count.
    pub(super) async fn find_earlier(
        &self,
        claim: &mut Option<Claim>,
        details: &mut Details,
    ) -> Result<Option<Earlier>, Failure> {
        if self.upload.idempotency_key.is_none() {
            return Ok(None);
        }
        let (access, request) = (&self.uploads.access, &self.upload.request);
        let permit = details
            .evaluate(access, request, Pass::Repeat, &**self.clock)
            .await?;
        details.tolerated.extend(permit.not_issued().await);
        let secret = self.secret().await?;
        let owner = Owner::of(&details.facts, self.uploads)?;
        let Some(replay) = self.replay(secret, &owner) else {
            return Ok(None);
        };
        *claim = Claim::wait(replay.slot).await;
        self.earlier(Some(replay)).await
    }

    /// Finds the earlier upload with the key of the client. Waits if another gate is creating it, because that request counts
    /// for the limits.
    pub(super) async fn earlier(&self, replay: Option<Replay>) -> Result<Option<Earlier>, Failure> {
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

    /// Asks again for an upload whose image is `known`.
    pub(super) async fn repeat(
        &self,
        intent: &Intent,
        known: &ImageId,
        details: &mut Details,
    ) -> Result<Obtained, Failure> {
        let record = intent.id;
        let repetition = self.begin_repetition(intent).await?;
        let upload = self.ask(repetition, &intent.call, details).await?;
        let image = &upload.image.id;
        if known != image || upload.image.is_deleted {
            self.delete(image).await;
            return Err(self.replaced(known).await);
        }
        self.withdraw(repetition).await;
        Ok(Obtained {
            record,
            upload,
            was_known: true,
            is_repeated: true,
        })
    }

    /// Asks for an upload whose request ended without an answer. `None` if it was settled meanwhile.
    pub(super) async fn take_over(
        &self,
        intent: Arc<Intent>,
        details: &mut Details,
    ) -> Result<Option<Obtained>, Failure> {
        let Some(_claim) = Claim::wait(digest_of(&intent.call)).await else {
            // Recovery waits for Imgwire.
            return Err(Failure::ImgwireFailed(ImgwireError::Timeout));
        };
        let found = self.found(&intent).await?;
        if !found.is_some_and(|earlier| earlier.id == intent.id && earlier.image.is_none()) {
            return Ok(None);
        }
        // The first request may still be at work, so this intent stays until that one has ended, too.
        let repetition = self.begin_repetition(&intent).await?;
        let record = intent.id;
        let upload = self.ask(repetition, &intent.call, details).await?;
        let was_known = self.complete(intent, &upload.image.id).await?;
        Ok(Some(Obtained {
            record,
            upload,
            was_known,
            is_repeated: true,
        }))
    }

    /// Records that the call of an intent is about to be made again. Returns the id of the new intent, which charges
    /// nothing.
    pub(super) async fn begin_repetition(&self, intent: &Intent) -> Result<RecordId, Failure> {
        let (id, _) = RecordId::new(&**self.clock);
        let repetition = Intent {
            id,
            replay: None,
            charges: Arc::default(),
            ..intent.clone()
        };
        let begun = self.uploads.records.begin(Arc::new(repetition)).await;
        begun.map(|_| id).map_err(Failure::Unrecorded)
    }

    /// Imgwire did not return the image of a key that it has seen. Either the image was deleted past the gate, or Imgwire
    /// does not honour the key.
    async fn replaced(&self, known: &ImageId) -> Failure {
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
        match self.record_deletion(known).await {
            // The key is free now, so the client can try again.
            Ok(()) => {
                let reason = "the image of this idempotency key was deleted at Imgwire";
                Failure::ImgwireFailed(ImgwireError::InvalidResponse(reason.to_owned()))
            }
            Err(ObserveError::Store(fault)) => Failure::Unrecorded(fault),
            Err(ObserveError::Imgwire(error)) => Failure::ImgwireFailed(error),
        }
    }

    /// Records that an image was deleted past the gate.
    async fn record_deletion(&self, image: &ImageId) -> Result<(), ObserveError> {
        let records = self.uploads.records.clone();
        let Some(record) = records.image(image).await? else {
            return Ok(());
        };
        let observer = Observer {
            records,
            client: self.client.clone(),
            clock: self.clock.clone(),
            rules: self.rules.load_full(),
        };
        let change = observer.change(&record, None);
        observer.apply(&record, change).await.map(drop)
    }
}
