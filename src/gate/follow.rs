//! Follows uploads until their file has arrived and is processed, or they are abandoned.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use policies::{Clock, Fault};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::observer::{Change, ObserveError, Observer};
use crate::{
    imgwire::ImgwireError,
    stores::{Record, RecordId, RecordStore, UploadState},
};

/// The shortest time between two reads of an upload.
const SHORTEST: SignedDuration = SignedDuration::from_secs(4);

/// How long the gate remembers that an image was missing in a read.
const MISSING_KEPT: SignedDuration = SignedDuration::from_hours(1);

/// How many images are read at once.
const CONCURRENT_READS: usize = 64;

/// How often the gate looks for uploads that are due.
const INTERVAL: Duration = Duration::from_millis(250);

/// The same, while more are due. Reads that end in this time are recorded together.
const BUSY_INTERVAL: Duration = Duration::from_millis(25);

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

type Read = LocalBoxFuture<'static, (RecordId, Result<Checked, Fault>)>;

/// Follows the uploads that are due. Of several gates that share a store, each follows others.
#[derive(Default)]
pub struct Follower {
    /// The reads that run. A slow one does not delay others.
    reads: FuturesUnordered<Read>,
    /// The uploads that this gate has taken. Others may read them again only later.
    taken: HashSet<RecordId>,
    /// Images that were missing when this gate last read them. One read does not prove that an image is gone.
    missing: HashMap<RecordId, Timestamp>,
    is_imgwire_failing: bool,
}

/// What became of an upload that was taken.
enum Checked {
    /// It is not followed any more.
    Settled,
    Later(Timestamp),
    /// Imgwire does not have the image. The next read says whether it is gone.
    Missing(Timestamp),
    Failed(Timestamp, ImgwireError),
}

impl Follower {
    /// Begins to check uploads that are due, and records what became of those whose check has ended. Waits a moment for
    /// them, so it can be called again at once.
    pub async fn work(&mut self, observer: &Observer) -> Result<(), Fault> {
        let begun = self.begin(observer).await;
        let has_more = *begun.as_ref().unwrap_or(&false);
        let checked = self.checked(has_more).await;
        let rescheduled = self.reschedule(observer, checked).await;
        begun?;
        rescheduled
    }

    /// Returns whether more uploads may be due.
    async fn begin(&mut self, observer: &Observer) -> Result<bool, Fault> {
        let free = CONCURRENT_READS.saturating_sub(self.reads.len());
        let Some(limit) = u32::try_from(free).ok().filter(|limit| *limit > 0) else {
            return Ok(true);
        };
        let now = observer.clock.now();
        // One call reads an image, and another one deletes it.
        let lease = 2 * observer.client.deadline() + MARGIN;
        let until = now.saturating_add(lease).unwrap_or(Timestamp::MAX);
        let rate = observer.rules.reads;
        let due = observer.records.take_followed(now, until, limit, rate);
        let due = due.await?;
        let is_full = due.len() >= free;
        for record in due {
            self.taken.insert(record.id);
            let was_missing = self.missing.contains_key(&record.id);
            let observer = observer.clone();
            self.reads.push(Box::pin(async move {
                let checked = check(&observer, &record, was_missing).await;
                (record.id, checked)
            }));
        }
        Ok(is_full)
    }

    /// Waits for checks that end soon.
    async fn checked(&mut self, has_more: bool) -> Vec<(RecordId, Result<Checked, Fault>)> {
        let wait = if has_more { BUSY_INTERVAL } else { INTERVAL };
        let end = Instant::now() + wait;
        let mut checked = Vec::new();
        while let Ok(Some(one)) = timeout_at(end, self.reads.next()).await {
            checked.push(one);
        }
        if !has_more {
            sleep_until(end).await;
        }
        checked
    }

    async fn reschedule(
        &mut self,
        observer: &Observer,
        checked: Vec<(RecordId, Result<Checked, Fault>)>,
    ) -> Result<(), Fault> {
        if checked.is_empty() {
            return Ok(());
        }
        let (mut later, mut failures, mut fault) = (Vec::new(), Vec::new(), None);
        let mut has_answered = false;
        let now = observer.clock.now();
        self.missing
            .retain(|_, at| now.duration_since(*at) < MISSING_KEPT);
        for (id, checked) in checked {
            self.taken.remove(&id);
            let was_missing = self.missing.remove(&id);
            match checked {
                Ok(Checked::Missing(at)) => {
                    has_answered = true;
                    self.missing.insert(id, now);
                    later.push((id, at));
                }
                Ok(Checked::Settled) => has_answered = true,
                Ok(Checked::Later(at)) => {
                    has_answered = true;
                    later.push((id, at));
                }
                Ok(Checked::Failed(at, error)) => {
                    self.missing.extend(was_missing.map(|at| (id, at)));
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
        self.reads.clear();
        let now = clock.now();
        let taken: Vec<_> = self.taken.drain().map(|id| (id, now)).collect();
        if taken.is_empty() {
            return;
        }
        if let Err(fault) = records.follow_later(taken).await {
            tracing::debug!(%fault, "the leases of uploads were not released");
        }
    }
}

async fn check(observer: &Observer, record: &Record, was_missing: bool) -> Result<Checked, Fault> {
    let created = record.origin.created_at;
    let result = match read(observer, record).await {
        Ok(Change::Gone) if !was_missing => {
            let now = observer.clock.now();
            return Ok(Checked::Missing(next_read(now, now)));
        }
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
        // A gate that ended had deleted it.
        Change::Gone
            if record.state == UploadState::Open
                && abandoned_at(observer, record) <= observer.clock.now() =>
        {
            observer.abandon(record).await?;
            Ok(true)
        }
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
