//! Follows uploads until their file has arrived and is processed, or they are abandoned.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Fault};

use super::observer::{Change, ObserveError, Observer};
use crate::{
    imgwire::ImgwireError,
    stores::{Record, RecordId, RecordStore, UploadState},
};

/// The shortest time between two reads of an upload.
const SHORTEST: SignedDuration = SignedDuration::from_secs(4);

/// How many uploads are taken at once.
const BATCH: u32 = 250;

/// How many images are read at once.
const CONCURRENT_READS: usize = 32;

/// How long after a batch was taken its reads may begin.
const START_TIME: Duration = Duration::from_secs(5);

/// For the changes of a record, in addition to the calls to Imgwire.
const MARGIN: Duration = Duration::from_secs(5);

/// When an upload of this age is read next. The gap is less than half of the age, so that a result is noticed within
/// max(5 s, half of the age) even if the read is a little late.
#[must_use]
pub(super) fn next_read(created: Timestamp, now: Timestamp) -> Timestamp {
    let age = now.duration_since(created).max(SignedDuration::ZERO);
    let gap = (age / 5 * 2).max(SHORTEST);
    now.saturating_add(gap).unwrap_or(Timestamp::MAX)
}

/// Follows the uploads that are due. Of several gates that share a store, each follows others.
#[derive(Default)]
pub struct Follower {
    /// The uploads that this gate has taken. Others may read them again only later.
    taken: Vec<RecordId>,
    is_imgwire_failing: bool,
}

/// What became of an upload that was taken.
enum Checked {
    /// It is not followed any more.
    Settled,
    Later(Timestamp),
    Failed(Timestamp, ImgwireError),
}

impl Follower {
    /// Checks the uploads that are due. Returns whether more may be due.
    pub async fn work(&mut self, observer: &Observer) -> Result<bool, Fault> {
        let clock = &*observer.clock;
        let (now, started) = (clock.now(), clock.elapsed());
        // One call reads an image, and another one deletes it.
        let lease = START_TIME + 2 * observer.client.deadline() + MARGIN;
        let until = now.saturating_add(lease).unwrap_or(Timestamp::MAX);
        let rate = observer.rules.reads;
        let due = observer.records.take_followed(now, until, BATCH, rate);
        let due = due.await?;
        if due.is_empty() {
            return Ok(false);
        }
        let is_full = due.len() >= BATCH as usize;
        self.taken = due.iter().map(|record| record.id).collect();
        let may_begin = || clock.elapsed().saturating_sub(started) < START_TIME;
        let checked: Vec<_> = stream::iter(&due)
            .map(async |record| {
                let checked = match may_begin() {
                    true => check(observer, record).await,
                    false => Ok(Checked::Later(clock.now())),
                };
                (record.id, checked)
            })
            .buffer_unordered(CONCURRENT_READS)
            .collect()
            .await;
        let rescheduled = self.reschedule(observer, checked).await;
        self.taken.clear();
        rescheduled.map(|()| is_full)
    }

    async fn reschedule(
        &mut self,
        observer: &Observer,
        checked: Vec<(RecordId, Result<Checked, Fault>)>,
    ) -> Result<(), Fault> {
        let (mut later, mut failures, mut fault) = (Vec::new(), Vec::new(), None);
        let mut has_answered = false;
        for (id, checked) in checked {
            match checked {
                Ok(Checked::Settled) => has_answered = true,
                Ok(Checked::Later(at)) => {
                    has_answered = true;
                    later.push((id, at));
                }
                Ok(Checked::Failed(at, error)) => {
                    failures.push(error);
                    later.push((id, at));
                }
                // It is due again when it is not taken any more.
                Err(one) => fault = Some(one),
            }
        }
        self.log(&failures, has_answered);
        if !later.is_empty() {
            observer.records.follow_later(later).await?;
        }
        fault.map_or(Ok(()), Err)
    }

    /// Writes one line for an outage, however long it takes.
    fn log(&mut self, failures: &[ImgwireError], has_answered: bool) {
        let uploads = failures.len();
        match failures.first() {
            Some(error) if self.is_imgwire_failing => {
                tracing::debug!(uploads, %error, "uploads cannot be followed");
            }
            Some(error) => {
                self.is_imgwire_failing = true;
                tracing::warn!(uploads, %error, "uploads cannot be followed");
            }
            None if has_answered && self.is_imgwire_failing => {
                self.is_imgwire_failing = false;
                tracing::info!("uploads are followed again");
            }
            None => {}
        }
    }

    /// Lets other gates, or the next start, read the taken uploads at once.
    pub async fn release(&mut self, records: &dyn RecordStore, clock: &dyn Clock) {
        let now = clock.now();
        let taken: Vec<_> = self.taken.drain(..).map(|id| (id, now)).collect();
        if taken.is_empty() {
            return;
        }
        if let Err(fault) = records.follow_later(taken).await {
            tracing::debug!(%fault, "the leases of uploads were not released");
        }
    }
}

async fn check(observer: &Observer, record: &Record) -> Result<Checked, Fault> {
    let created = record.origin.created_at;
    let result = match read(observer, record).await {
        Ok(change) => follow(observer, record, change).await,
        Err(error) => Err(error.into()),
    };
    let now = observer.clock.now();
    match result {
        Ok(is_settled) if is_settled => Ok(Checked::Settled),
        Ok(_) => {
            let next = next_read(created, now);
            let end = abandoned_at(observer, record);
            let is_ahead = end > now;
            Ok(Checked::Later(if is_ahead { next.min(end) } else { next }))
        }
        Err(ObserveError::Imgwire(error)) => Ok(Checked::Failed(next_read(created, now), error)),
        Err(ObserveError::Store(fault)) => Err(fault),
    }
}

async fn read(observer: &Observer, record: &Record) -> Result<Change, ImgwireError> {
    // The port says that a followed record has an image.
    let Some(image) = &record.image else {
        return Ok(Change::Nothing);
    };
    let image = observer.client.image_once(image).await?;
    Ok(observer.change(record, image.as_ref()))
}

/// Does what follows from a read. Returns whether the upload needs no more reads.
async fn follow(
    observer: &Observer,
    record: &Record,
    change: Change,
) -> Result<bool, ObserveError> {
    match change {
        Change::Pending | Change::Processing | Change::Nothing
            if record.state != UploadState::Open =>
        {
            // A deletion that was begun did not happen.
            let (state, real) = (record.state, record.real.clone());
            let settling = observer.records.settle(record.id, state, real, Vec::new());
            settling.await?;
            Ok(true)
        }
        Change::Pending if abandoned_at(observer, record) <= observer.clock.now() => {
            observer.abandon(record).await?;
            Ok(true)
        }
        Change::Pending | Change::Processing | Change::Nothing => Ok(false),
        Change::Settled(_) | Change::Rejected(_) | Change::Gone => {
            observer.apply(record, change).await?;
            Ok(true)
        }
    }
}

fn abandoned_at(observer: &Observer, record: &Record) -> Timestamp {
    let after = observer.rules.abandon_after(&record.origin.route);
    let at = record.origin.created_at.saturating_add(after);
    at.unwrap_or(Timestamp::MAX)
}
