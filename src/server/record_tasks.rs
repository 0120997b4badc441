//! Background work on the records of uploads: uploads without an answer, erasures, and old records.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::future::join3;
use policies::Fault;
use rustls::ClientConfig;
use tokio::{sync::oneshot, time::sleep};

use crate::{
    config::ImgwireSettings,
    gate::{erasure::Eraser, recovery::recover, retention::remove_old},
    http::Gate,
    imgwire::Client,
    stores::RecordStore,
};

/// How often the tasks look for work.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between batches of uploads without an answer.
const BATCH_PAUSE: Duration = Duration::from_millis(250);

/// For the changes of a record, in addition to the calls to Imgwire.
const MARGIN: Duration = Duration::from_secs(20);

const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long an erasure may take to give its job back when the gate stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The tasks of one gate. They use the store of the rules in force.
pub(crate) struct RecordTasks {
    gate: Arc<Gate>,
    imgwire: ImgwireSettings,
    tls: Arc<ClientConfig>,
}

impl RecordTasks {
    pub(crate) fn new(gate: Arc<Gate>, imgwire: &ImgwireSettings, tls: Arc<ClientConfig>) -> Self {
        Self {
            gate,
            imgwire: imgwire.clone(),
            tls,
        }
    }

    /// Works until `stop` resolves, and ends at once then: what is half done is done again later.
    pub(crate) async fn run(self, stop: oneshot::Receiver<()>) {
        let client = Rc::new(Client::new(
            &self.imgwire,
            &self.tls,
            self.gate.upstream.clone(),
            self.gate.clock.clone(),
        ));
        let mut eraser = Eraser::default();
        let work = async {
            join3(
                self.recover(&client),
                self.erase(&mut eraser, &client),
                self.remove_old(),
            )
            .await
        };
        tokio::select! {
            _ = work => {}
            _ = stop => {}
        }
        let released = eraser.release(&*self.gate.clock);
        // Otherwise the job is free again a little later.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, released).await;
    }

    fn records(&self) -> Option<Arc<dyn RecordStore>> {
        self.gate.rules.load().records.clone()
    }

    async fn recover(&self, client: &Rc<Client>) {
        // One call creates an upload, and another one deletes it.
        let retry = 2 * client.deadline() + MARGIN;
        let mut state = TaskState::new("recovery");
        // A call of an earlier process may still reach Imgwire. If the recovery had deleted its image before, that call would
        // create another one.
        sleep(self.imgwire.timeout.get()).await;
        loop {
            let mut has_more = false;
            if let Some(records) = self.records() {
                let recovered = recover(&records, client, &*self.gate.clock, retry).await;
                has_more = state.log(recovered).unwrap_or_default();
            }
            sleep(if has_more { BATCH_PAUSE } else { INTERVAL }).await;
        }
    }

    async fn erase(&self, eraser: &mut Eraser, client: &Rc<Client>) {
        let mut state = TaskState::new("erasure");
        loop {
            let records = self.records();
            let worked = eraser.work(records.as_ref(), client, &*self.gate.clock);
            state.log(worked.await);
            sleep(INTERVAL).await;
        }
    }

    async fn remove_old(&self) {
        let clock = &*self.gate.clock;
        let mut state = TaskState::new("retention");
        let mut next = clock.elapsed();
        loop {
            if clock.elapsed() >= next
                && let Some(records) = self.records()
            {
                let keep = self.gate.rules.load().keep_records.get();
                let removed = state.log(remove_old(&records, clock, keep).await);
                if removed.is_some() {
                    next = clock.elapsed().saturating_add(RETENTION_INTERVAL);
                }
            }
            sleep(INTERVAL).await;
        }
    }
}

/// Whether a task fails, to write one line when it begins to fail.
struct TaskState {
    task: &'static str,
    is_failing: bool,
}

impl TaskState {
    fn new(task: &'static str) -> Self {
        Self {
            task,
            is_failing: false,
        }
    }

    fn log<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        let task = self.task;
        match result {
            Ok(output) => {
                self.is_failing = false;
                Some(output)
            }
            Err(fault) if self.is_failing => {
                tracing::debug!(task, %fault, "work on records of uploads failed");
                None
            }
            Err(fault) => {
                self.is_failing = true;
                tracing::warn!(task, %fault, "work on records of uploads failed");
                None
            }
        }
    }
}
