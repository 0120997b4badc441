//! Compares every record with Imgwire, as a job that survives the end of the gate.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use policies::{Clock, Fault};
use uuid::Uuid;

use super::observer::{Change, ObserveError, Observer};
use crate::stores::{
    Page, Reconciled, Reconciliation, Record, RecordId, RecordQuery, RecordStore, UploadState,
};

/// If a gate ends, another one takes its job over after this time.
const LEASE: Duration = Duration::from_secs(30);

const RENEWAL: Duration = Duration::from_secs(10);

/// The job is saved after so many records.
const BATCH: u32 = 100;

/// How many images are read between two looks at the lease.
const STEP: usize = 32;

const CONCURRENT_READS: usize = 8;

/// Before an image that could not be read is read again. The round after the last pause is the last one.
const ROUND_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Starts a reconciliation of all records that exist. Returns the id of the one that runs, if there is one.
pub async fn start(records: &dyn RecordStore, clock: &dyn Clock) -> Result<Uuid, Fault> {
    // The id also says which records are later. The clock of the gate that made the newest record may be ahead.
    let (now, _) = RecordId::new(clock);
    let one = Page { number: 1, size: 1 };
    let newest = records.find(RecordQuery::default(), one).await?;
    let newest = newest.first().map(|record| record.id.later());
    let RecordId(id) = newest.map_or(now, |newest| newest.max(now));
    records.start_reconciliation(id).await
}

/// Does the job, if there is one. Of several gates that share a store, one does it.
#[derive(Default)]
pub struct Reconciler {
    job: Option<Job>,
}

struct Job {
    records: Arc<dyn RecordStore>,
    /// As it is saved.
    saved: Reconciliation,
    batch: Option<Batch>,
    next_round: Duration,
    renewed: Duration,
}

/// Records that are compared.
struct Batch {
    last: RecordId,
    left: Vec<Record>,
    /// The records whose images could not be read in this round.
    failed: Vec<Record>,
    failed_rounds: usize,
    progress: Reconciled,
}

enum Compared {
    Equal,
    Deleted,
    Corrected,
    Failed,
}

impl Reconciler {
    /// Goes on with the job, or takes it. Returns whether there is more to do at once.
    pub async fn work(&mut self, observer: &Observer) -> Result<bool, Fault> {
        if self.job.is_none() {
            self.job = Job::take(observer).await?;
        }
        let Some(job) = &mut self.job else {
            return Ok(false);
        };
        let worked = job.work(observer).await;
        if worked.is_err() {
            // What was not saved is compared again.
            job.batch = None;
        }
        if job.saved.progress.done {
            self.job = None;
        }
        worked
    }

    /// Lets another gate take the job at once.
    pub async fn release(&mut self, clock: &dyn Clock) {
        if let Some(job) = self.job.take() {
            let released = job.records.save_reconciliation(job.saved, clock.now());
            if let Err(fault) = released.await {
                tracing::debug!(%fault, "the lease of a reconciliation was not released");
            }
        }
    }
}

impl Job {
    async fn take(observer: &Observer) -> Result<Option<Self>, Fault> {
        let clock = &*observer.clock;
        let now = clock.now();
        let taken = observer
            .records
            .take_reconciliation(now, lease(now))
            .await?;
        Ok(taken.map(|saved| {
            tracing::info!(job = %saved.id, "reconciliation started");
            Self {
                records: observer.records.clone(),
                saved,
                batch: None,
                next_round: clock.elapsed(),
                renewed: clock.elapsed(),
            }
        }))
    }

    async fn work(&mut self, observer: &Observer) -> Result<bool, Fault> {
        let clock = &*observer.clock;
        if clock.elapsed().saturating_sub(self.renewed) >= RENEWAL {
            self.save(clock).await?;
        }
        if clock.elapsed() < self.next_round {
            return Ok(false);
        }
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => self.next_batch().await?,
        };
        let Some(batch) = self.compare(batch, observer).await? else {
            return Ok(false);
        };
        if !batch.left.is_empty() {
            self.batch = Some(batch);
            return Ok(true);
        }
        if let Some(pause) = ROUND_PAUSES.get(batch.failed_rounds)
            && !batch.failed.is_empty()
        {
            self.next_round = clock.elapsed().saturating_add(*pause);
            self.batch = Some(Batch {
                left: batch.failed,
                failed: Vec::new(),
                failed_rounds: batch.failed_rounds + 1,
                ..batch
            });
            return Ok(false);
        }
        let failed = batch.failed.len() as u64;
        self.saved.after = Some(batch.last);
        self.saved.progress = batch.progress;
        self.saved.progress.failed += failed;
        self.save(clock).await?;
        if batch.progress.done {
            self.log_end();
        }
        Ok(true)
    }

    /// The next records. The last batch has none.
    async fn next_batch(&self) -> Result<Batch, Fault> {
        let mut left = self.records.export(self.saved.after, BATCH).await?;
        let is_last = left.len() < BATCH as usize;
        let before = left.len();
        left.retain(|record| record.id <= RecordId(self.saved.id));
        let is_last = is_last || left.len() < before;
        let last = left.last().map(|record| record.id);
        left.retain(exists);
        Ok(Batch {
            last: last.or(self.saved.after).unwrap_or(RecordId(Uuid::nil())),
            left,
            failed: Vec::new(),
            failed_rounds: 0,
            progress: Reconciled {
                done: is_last,
                ..self.saved.progress
            },
        })
    }

    /// Compares some of the records that are left. `None` if no image may be read now.
    async fn compare(
        &mut self,
        mut batch: Batch,
        observer: &Observer,
    ) -> Result<Option<Batch>, Fault> {
        let wanted = batch.left.len().min(STEP);
        if wanted == 0 {
            return Ok(Some(batch));
        }
        let (now, mut rate) = (observer.clock.now(), observer.rules.reads);
        // The rest is for following.
        rate.limit = rate.limit.div_ceil(2);
        let allowed = u32::try_from(wanted).unwrap_or(u32::MAX);
        let allowed = self.records.take_reads(now, allowed, rate).await?;
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).min(wanted);
        if allowed == 0 {
            self.batch = Some(batch);
            return Ok(None);
        }
        let step: Vec<_> = batch.left.drain(..allowed).collect();
        let compared: Vec<_> = stream::iter(step)
            .map(async |record| {
                let compared = compare(observer, &record).await;
                (record, compared)
            })
            .buffered(CONCURRENT_READS)
            .collect()
            .await;
        for (record, compared) in compared {
            let compared = compared?;
            batch.progress.checked += 1;
            match compared {
                Compared::Equal => {}
                Compared::Deleted => batch.progress.deleted += 1,
                Compared::Corrected => batch.progress.corrected += 1,
                Compared::Failed => {
                    batch.progress.checked -= 1;
                    batch.failed.push(record);
                }
            }
        }
        Ok(Some(batch))
    }

    /// Saves the job, and keeps it from other gates.
    async fn save(&mut self, clock: &dyn Clock) -> Result<(), Fault> {
        let until = lease(clock.now());
        self.records.save_reconciliation(self.saved, until).await?;
        self.renewed = clock.elapsed();
        Ok(())
    }

    fn log_end(&self) {
        let Reconciled {
            checked,
            deleted,
            corrected,
            failed,
            ..
        } = self.saved.progress;
        let job = self.saved.id;
        if failed == 0 {
            tracing::info!(%job, checked, deleted, corrected, "reconciliation finished");
        } else {
            tracing::warn!(
                %job,
                checked,
                deleted,
                corrected,
                failed,
                "reconciliation finished, but some images could not be read"
            );
        }
    }
}

fn exists(record: &Record) -> bool {
    let states = [
        UploadState::Open,
        UploadState::Ready,
        UploadState::Quarantined,
    ];
    record.image.is_some() && states.contains(&record.state)
}

async fn compare(observer: &Observer, record: &Record) -> Result<Compared, Fault> {
    let Some(image) = &record.image else {
        return Ok(Compared::Equal);
    };
    let image = match observer.client.image_once(image).await {
        Ok(image) => image,
        Err(error) => return Ok(failed(record, &error)),
    };
    let change = observer.change(record, image.as_ref());
    let is_gone = change == Change::Gone;
    let is_changed = match observer.apply(record, change).await {
        Ok(is_changed) => is_changed,
        Err(ObserveError::Store(fault)) => return Err(fault),
        Err(ObserveError::Imgwire(error)) => return Ok(failed(record, &error)),
    };
    if is_gone {
        return Ok(if is_changed {
            Compared::Deleted
        } else {
            Compared::Equal
        });
    }
    let is_recounted = match observer.rules.storage_counters(&record.origin) {
        Some(counters) => observer.records.recount(record.id, counters).await?,
        None => false,
    };
    Ok(if is_changed || is_recounted {
        Compared::Corrected
    } else {
        Compared::Equal
    })
}

fn failed(record: &Record, error: &crate::imgwire::ImgwireError) -> Compared {
    let RecordId(id) = record.id;
    tracing::debug!(record = %id, %error, "image of a reconciliation could not be read");
    Compared::Failed
}

fn lease(now: Timestamp) -> Timestamp {
    now.saturating_add(LEASE).unwrap_or(Timestamp::MAX)
}
