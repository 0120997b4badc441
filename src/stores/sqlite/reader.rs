//! Reads on a connection and a thread of their own, which neither wait for the writer nor delay it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use policies::Clock;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::{sync::oneshot, time::timeout};

use super::{
    connection::{LOCK_TIMEOUT, keep_statements},
    file::OwnedFile,
    records::{NewKeys, View},
};
use crate::stores::fault::StoreFault;

/// How many reads may wait.
const MAX_WAITING: usize = 1024;

/// After how many of SQLite's instructions a query checks whether its time is up.
const INSTRUCTIONS: i32 = 10_000;

type Job = Box<dyn FnOnce(&ReadConnection) + Send>;

pub(super) struct Reader {
    /// `None` while it is dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// For one read.
    limit: Duration,
}

/// Whether the writer has the file open, and where. SQLite empties the log only when the last connection is closed, so
/// the writer closes this one before its own.
#[derive(Clone, Default)]
pub(super) struct ReadSlot {
    slot: Arc<Mutex<Slot>>,
    new_keys: NewKeys,
}

#[derive(Default)]
struct Slot {
    path: Option<PathBuf>,
    /// Opened by the first read.
    connection: Option<Connection>,
}

impl ReadSlot {
    pub(super) fn new_keys(&self) -> &NewKeys {
        &self.new_keys
    }

    pub(super) fn allow(&self, path: &Path) {
        self.slot.lock().path = Some(path.to_owned());
    }

    /// Waits for the end of the current read.
    pub(super) fn close(&self) {
        *self.slot.lock() = Slot::default();
    }
}

struct ReadConnection {
    slot: ReadSlot,
    file: Arc<OwnedFile>,
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// When the current query is cancelled, in milliseconds of the clock.
    deadline: Arc<AtomicU64>,
}

impl Reader {
    pub(super) fn start(
        slot: ReadSlot,
        file: Arc<OwnedFile>,
        clock: Arc<dyn Clock>,
        limit: Duration,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let connection = ReadConnection {
            slot,
            file,
            clock,
            limit,
            deadline: Arc::default(),
        };
        let run =
            move |waiting: Receiver<Job>| waiting.into_iter().for_each(|job| job(&connection));
        let thread = std::thread::Builder::new().name("record-reader".to_owned());
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread.spawn(move || run(waiting))?),
            limit,
        })
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&View<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |connection: &ReadConnection| {
            // Otherwise the request has given up.
            if !reply.is_closed() {
                let _ = reply.send(connection.read(query));
            }
        });
        let jobs = self.jobs.as_ref().ok_or(StoreFault::Down)?;
        let too_many = |_| StoreFault::Refused("too many reads wait for the file".to_owned());
        jobs.try_send(job).map_err(too_many)?;
        let answer = timeout(self.limit, answer).await;
        let answer = answer.map_err(|_| StoreFault::Timeout)?;
        answer.unwrap_or(Err(StoreFault::Down))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A reader that panicked reads no more.
            let _ = thread.join();
        }
    }
}

impl ReadConnection {
    fn read<T>(
        &self,
        query: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreFault> {
        let refused = |error: &dyn std::fmt::Display| StoreFault::Refused(error.to_string());
        self.file.check().map_err(|error| refused(&error))?;
        let mut slot = self.slot.slot.lock();
        let Slot { path, connection } = &mut *slot;
        let path = path.as_deref().ok_or(StoreFault::Down)?;
        let open = match connection {
            Some(open) => open,
            None => connection.insert(self.open(path).map_err(|error| refused(&error))?),
        };
        let deadline = millis(self.clock.elapsed() + self.limit);
        self.deadline.store(deadline, Ordering::Relaxed);
        let view = View {
            connection: open,
            new_keys: Some(&self.slot.new_keys),
        };
        query(&view).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => StoreFault::Timeout,
            _ => refused(&error),
        })
    }

    fn open(&self, path: &Path) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        keep_statements(&connection)?;
        let (clock, deadline) = (self.clock.clone(), self.deadline.clone());
        let is_late = move || millis(clock.elapsed()) >= deadline.load(Ordering::Relaxed);
        connection.progress_handler(INSTRUCTIONS, Some(is_late))?;
        Ok(connection)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
