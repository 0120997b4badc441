//! Erases the images and the records of a person, as a job that survives the end of the gate.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use policies::{Clock, Fault, SubjectId};
use uuid::Uuid;

use super::{background::context, observer::Observer};
use crate::stores::{
    Erasure, Page, Progress, Record, RecordId, RecordQuery, RecordStore, UploadState,
};

/// If a gate ends, another one takes its job over after this time.
const LEASE: Duration = Duration::from_secs(30);

const RENEWAL: Duration = Duration::from_secs(10);

/// Between deletions, so that requests come first.
const DELETION_PAUSE: Duration = Duration::from_millis(250);

/// After each round in which deletions failed. The round after the last pause is the last one.
const ROUND_PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// While uploads have no answer yet, for which their request or the recovery waits.
const OPEN_PAUSE: Duration = Duration::from_secs(2);

const PAGE_SIZE: u32 = 50;

/// Starts the erasure of all that `subject` has uploaded so far.
pub async fn start(
    records: &dyn RecordStore,
    clock: &dyn Clock,
    subject: SubjectId,
) -> Result<Uuid, Fault> {
    // The clock of the gate that made the newest record may be ahead.
    let query = RecordQuery {
        subject: Some(subject.clone()),
        ..RecordQuery::default()
    };
    let newest = records.find(query, Page { number: 1, size: 1 }).await?;
    let newest = newest.first().map(|record| record.id);
    let id = Uuid::new_v4();
    let erasure = Erasure {
        id,
        subject,
        until: last_id_at(clock.now()).max(newest.unwrap_or(RecordId(Uuid::nil()))),
        progress: Progress::default(),
    };
    records.start_erasure(erasure).await?;
    Ok(id)
}

/// The greatest id that a record of this time can have.
fn last_id_at(time: Timestamp) -> RecordId {
    let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or_default();
    let last = uuid::Builder::from_unix_timestamp_millis(milliseconds, &[0xff; 10]);
    RecordId(last.into_uuid())
}

/// Does one job after the other. Of several gates that share a store, one does a job.
#[derive(Default)]
pub struct Eraser {
    job: Option<Job>,
}

struct Job {
    records: Arc<dyn RecordStore>,
    erasure: Erasure,
    /// The rounds in which deletions failed.
    failed_rounds: usize,
    next_round: Duration,
    renewed: Duration,
}

/// What one look at all records of the person did.
#[derive(Default)]
struct Round {
    removed: u64,
    failed: u64,
    /// Uploads without an answer.
    open: u64,
    /// Those after the erasure was asked for.
    later: u64,
}

enum Erased {
    Removed,
    Failed,
    Open,
    Later,
}

impl Eraser {
    /// Goes on with the current job, or takes one. Call it about once per second.
    pub async fn work(&mut self, observer: &Observer) -> Result<(), Fault> {
        if self.job.is_none() {
            self.job = Job::take(&observer.records, &*observer.clock).await?;
        }
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        if job.work(observer).await? {
            self.job = None;
        }
        Ok(())
    }

    /// Lets another gate take the job at once.
    pub async fn release(&mut self, clock: &dyn Clock) {
        if let Some(job) = self.job.take() {
            let released = job.records.hold_erasure(job.erasure.id, clock.now()).await;
            if let Err(fault) = released {
                tracing::debug!(%fault, "the lease of an erasure was not released");
            }
        }
    }
}

impl Job {
    async fn take(
        records: &Arc<dyn RecordStore>,
        clock: &dyn Clock,
    ) -> Result<Option<Self>, Fault> {
        let now = clock.now();
        let Some(erasure) = records.take_erasure(now, lease(now)).await? else {
            return Ok(None);
        };
        let (job, subject) = (erasure.id, erasure.subject.as_str());
        tracing::info!(%job, subject, "erasure started");
        Ok(Some(Self {
            records: records.clone(),
            erasure,
            failed_rounds: 0,
            next_round: clock.elapsed(),
            renewed: clock.elapsed(),
        }))
    }

    /// Returns whether the job is done.
    async fn work(&mut self, observer: &Observer) -> Result<bool, Fault> {
        let clock = &*observer.clock;
        self.renew(clock).await?;
        if clock.elapsed() < self.next_round {
            return Ok(false);
        }
        let round = self.round(observer).await?;
        self.erasure.progress.failed = round.failed;
        if round.failed > 0 {
            self.failed_rounds += 1;
        }
        // Records that were added or removed during the round may have hidden others from it.
        let is_certain = round.removed == 0;
        let is_hopeless = self.failed_rounds > ROUND_PAUSES.len();
        self.erasure.progress.done =
            round.open == 0 && (is_hopeless || is_certain && round.failed == 0);
        let pause = match (round.failed, round.open) {
            (0, 0) => Duration::ZERO,
            (0, _) => OPEN_PAUSE,
            _ => ROUND_PAUSES[(self.failed_rounds - 1).min(ROUND_PAUSES.len() - 1)],
        };
        self.next_round = clock.elapsed().saturating_add(pause);
        self.save().await?;
        if self.erasure.progress.done {
            self.log_end();
        }
        Ok(self.erasure.progress.done)
    }

    /// Looks at all records of the person once. Those that stay are at the start of the list from then on.
    async fn round(&mut self, observer: &Observer) -> Result<Round, Fault> {
        let size = u64::from(PAGE_SIZE);
        let mut round = Round::default();
        let mut kept = 0;
        loop {
            let query = RecordQuery {
                subject: Some(self.erasure.subject.clone()),
                ..RecordQuery::default()
            };
            let page = Page {
                number: kept / size + 1,
                size: PAGE_SIZE,
            };
            let found = self.records.find(query, page).await?;
            let seen = usize::try_from(kept % size).unwrap_or_default();
            if found.len() <= seen {
                return Ok(round);
            }
            for record in found.into_iter().skip(seen) {
                let counted = match self.erase(record, observer).await? {
                    Erased::Removed => &mut round.removed,
                    Erased::Failed => &mut round.failed,
                    Erased::Open => &mut round.open,
                    Erased::Later => &mut round.later,
                };
                *counted += 1;
            }
            kept = round.failed + round.open + round.later;
        }
    }

    async fn erase(&mut self, record: Record, observer: &Observer) -> Result<Erased, Fault> {
        let clock = &*observer.clock;
        if record.id > self.erasure.until {
            return Ok(Erased::Later);
        }
        let image = match (record.state, &record.image) {
            (UploadState::Requested, _) => return Ok(Erased::Open),
            (UploadState::Deleted | UploadState::Abandoned, _) | (_, None) => None,
            (_, Some(image)) => Some(image),
        };
        if let Some(image) = image {
            let deleted = observer.client.delete_image(image, &context()).await.result;
            tokio::time::sleep(DELETION_PAUSE).await;
            if let Err(error) = deleted {
                let (job, image_id) = (self.erasure.id, image.as_str());
                tracing::warn!(%job, image_id, %error, "image of an erasure not deleted");
                self.renew(clock).await?;
                return Ok(Erased::Failed);
            }
            self.erasure.progress.deleted += 1;
            if observer.rules.sends_events {
                observer.delete(&record).await?;
            }
        }
        // If the gate ends before this, the next one finds the image deleted.
        self.records.remove(record.id).await?;
        if image.is_some() {
            self.save().await?;
        }
        self.renew(clock).await?;
        Ok(Erased::Removed)
    }

    /// Keeps the job from other gates.
    async fn renew(&mut self, clock: &dyn Clock) -> Result<(), Fault> {
        if clock.elapsed().saturating_sub(self.renewed) < RENEWAL {
            return Ok(());
        }
        let until = lease(clock.now());
        self.records.hold_erasure(self.erasure.id, until).await?;
        self.renewed = clock.elapsed();
        Ok(())
    }

    async fn save(&self) -> Result<(), Fault> {
        let Erasure { id, progress, .. } = self.erasure;
        self.records.update_erasure(id, progress).await
    }

    fn log_end(&self) {
        let Erasure {
            id: job, progress, ..
        } = &self.erasure;
        let Progress {
            deleted, failed, ..
        } = *progress;
        if failed == 0 {
            tracing::info!(%job, deleted, "erasure finished");
        } else {
            tracing::warn!(%job, deleted, failed, "erasure finished, but Imgwire did not delete some images");
        }
    }
}

fn lease(now: Timestamp) -> Timestamp {
    now.saturating_add(LEASE).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_of_the_time_of_an_erasure_is_erased() {
        let now = Timestamp::from_millisecond(1_800_000_000_123).expect("the time is valid");
        let last = last_id_at(now);
        let at = |milliseconds: u32| {
            let time =
                uuid::Timestamp::from_unix_time(1_800_000_000, milliseconds * 1_000_000, 0, 0);
            RecordId(Uuid::new_v7(time))
        };
        assert!(at(122) < last && at(123) <= last && at(124) > last);
        assert_eq!(last.0.get_version_num(), 7);
    }
}
