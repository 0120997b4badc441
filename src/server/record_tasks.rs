//! Background work on the records of uploads: uploads without an answer, open uploads, erasures, reconciliations, old
//! records, and events.

use std::{rc::Rc, sync::Arc, time::Duration};

use futures_util::future::{join3, join5};
use policies::Fault;
use rustls::ClientConfig;
use tokio::{sync::oneshot, time::sleep};

use crate::{
    config::{ImgwireSettings, events},
    gate::{
        erasure::Eraser,
        event_delivery::{EventSender, drop_expired},
        follow::Follower,
        observer::Observer,
        reconciliation::Reconciler,
        recovery::recover,
        retention::remove_old,
    },
    http::Gate,
    imgwire::Client,
    outbound::HttpClient,
    stores::RecordStore,
};

/// How often the tasks look for work.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between batches of uploads without an answer.
const BATCH_PAUSE: Duration = Duration::from_millis(250);

/// Between steps of a reconciliation.
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// For the changes of a record, in addition to the calls to Imgwire.
const MARGIN: Duration = Duration::from_secs(20);

const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How often the events that wait are counted.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(5);

/// How long it may take to give jobs, uploads and events back when the gate stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The tasks of one gate. They use the store of the rules in force.
pub(crate) struct RecordTasks {
    gate: Arc<Gate>,
    imgwire: ImgwireSettings,
    tls: Arc<ClientConfig>,
    http: HttpClient,
}

impl RecordTasks {
    pub(crate) fn new(
        gate: Arc<Gate>,
        imgwire: &ImgwireSettings,
        tls: Arc<ClientConfig>,
        http: HttpClient,
    ) -> Self {
        Self {
            gate,
            imgwire: imgwire.clone(),
            tls,
            http,
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
        let (mut eraser, mut follower) = (Eraser::default(), Follower::default());
        let mut reconciler = Reconciler::default();
        let (clock, metrics) = (self.gate.clock.clone(), self.gate.metrics.clone());
        let mut sender = EventSender::new(self.http.clone(), clock, metrics);
        let work = async {
            let records = join5(
                self.recover(&client),
                self.follow(&mut follower, &client),
                self.erase(&mut eraser, &client),
                self.reconcile(&mut reconciler, &client),
                self.remove_old(),
            );
            join3(records, self.send_events(&mut sender), self.drop_events()).await
        };
        tokio::select! {
            _ = work => {}
            _ = stop => {}
        }
        let clock = &*self.gate.clock;
        let released = async {
            eraser.release(clock).await;
            reconciler.release(clock).await;
            if let Some(records) = self.records() {
                follower.release(&*records, clock).await;
            }
            if let Err(fault) = sender.finish().await {
                tracing::debug!(%fault, "events were not given back");
            }
        };
        // Otherwise they are free again a little later.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, released).await;
    }

    fn observer(&self, client: &Rc<Client>) -> Option<Observer> {
        let rules = self.gate.rules.load_full();
        Some(Observer {
            records: rules.records.clone()?,
            client: client.clone(),
            clock: self.gate.clock.clone(),
            rules,
        })
    }

    fn records(&self) -> Option<Arc<dyn RecordStore>> {
        self.gate.rules.load().records.clone()
    }

    async fn recover(&self, client: &Rc<Client>) {
        // One call creates an upload, another one deletes it, and there may be a wait between them.
        let retry = 2 * client.deadline() + client.timeout() + MARGIN;
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

    async fn follow(&self, follower: &mut Follower, client: &Rc<Client>) {
        let mut state = TaskState::new("following");
        loop {
            match self.observer(client) {
                Some(observer) => _ = state.log(follower.work(&observer).await),
                None => {
                    // Running reads would keep the store of earlier rules open.
                    *follower = Follower::default();
                    sleep(INTERVAL).await;
                }
            }
        }
    }

    async fn erase(&self, eraser: &mut Eraser, client: &Rc<Client>) {
        let mut state = TaskState::new("erasure");
        loop {
            if let Some(observer) = self.observer(client) {
                state.log(eraser.work(&observer).await);
            }
            sleep(INTERVAL).await;
        }
    }

    async fn reconcile(&self, reconciler: &mut Reconciler, client: &Rc<Client>) {
        let mut state = TaskState::new("reconciliation");
        loop {
            let mut has_more = false;
            if let Some(observer) = self.observer(client) {
                let worked = reconciler.work(&observer).await;
                has_more = state.log(worked).unwrap_or_default();
            }
            sleep(if has_more { STEP_PAUSE } else { INTERVAL }).await;
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

    async fn send_events(&self, sender: &mut EventSender) {
        let mut state = TaskState::new("events");
        loop {
            let mut pause = INTERVAL;
            // A reload may close the store of earlier rules, so nothing keeps them during the pause.
            let rules = self.gate.rules.load_full();
            if let (Some(records), Some(receiver)) = (&rules.records, &rules.receiver) {
                let sent = state.log(sender.work(records, receiver).await);
                pause = sent.unwrap_or(INTERVAL);
            }
            drop(rules);
            sleep(pause).await;
        }
    }

    /// Also measures them. Events of an earlier config, which has no receiver now, are dropped, too.
    async fn drop_events(&self) {
        let Gate { clock, metrics, .. } = &*self.gate;
        let mut state = TaskState::new("old events");
        loop {
            let rules = self.gate.rules.load_full();
            if let Some(records) = &rules.records {
                let receiver = rules.receiver.as_ref();
                let keep = receiver.map_or(events::default_keep().get(), |it| it.keep());
                state.log(drop_expired(records, &**clock, metrics, keep).await);
            }
            drop(rules);
            sleep(BACKLOG_INTERVAL).await;
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
