//! Signals, for the commands that run a gate. A thread handles them from the first instruction on, so that one that
//! comes during a slow start has its usual effect.

use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, Notify, mpsc},
};

use super::Failure;
use crate::server::Stop;

/// What the signals ask for.
pub(super) struct Signals {
    /// Until the gate serves, nothing is lost if the process ends at once.
    is_serving: Arc<AtomicBool>,
    reload: Arc<Notify>,
    stop: Mutex<mpsc::UnboundedReceiver<Stop>>,
}

/// The streams of all handled signals. Their handlers stand while they exist.
struct Handlers {
    hangup: Signal,
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
}

impl Handlers {
    fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal that asks to stop. Meanwhile a SIGHUP asks for a reload.
    async fn next_stop(&mut self, reload: &Notify) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Drain,
                // Without a handler it would write the secrets in memory to a core file.
                _ = self.quit.recv() => return Stop::Drain,
                // Ctrl-C: an operator is waiting.
                _ = self.interrupt.recv() => return Stop::AtOnce,
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
    }
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let mut handlers = {
            let _entered = runtime.enter();
            Handlers::install()?
        };
        let is_serving = Arc::<AtomicBool>::default();
        let reload = Arc::<Notify>::default();
        let (stops, stop) = mpsc::unbounded_channel();
        let (serving, reloads) = (is_serving.clone(), reload.clone());
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut sent = 0;
                    loop {
                        let stop = handlers.next_stop(&reloads).await;
                        let is_serving = serving.load(Ordering::Acquire);
                        // If a second one has not ended the process, the thread that receives them hangs, for example on
                        // a file of the config.
                        if !is_serving || sent == 2 || stops.send(stop).is_err() {
                            process::exit(0);
                        }
                        sent += 1;
                    }
                });
            })?;
        Ok(Self {
            is_serving,
            reload,
            stop: Mutex::new(stop),
        })
    }

    /// From now on, a signal to stop waits until [`next_stop`](Self::next_stop) takes it.
    pub(super) fn start_serving(&self) {
        self.is_serving.store(true, Ordering::Release);
    }

    /// Waits for a signal to stop. The first one drains the gate, and the second one ends it at once.
    pub(super) async fn next_stop(&self) -> Stop {
        let stop = self.stop.lock().await.recv().await;
        // The thread that sends never ends.
        stop.unwrap_or(Stop::AtOnce)
    }

    /// Waits for a SIGHUP. One that came during the start counts, too.
    pub(super) async fn hangup(&self) {
        self.reload.notified().await;
    }
}

/// Resolves on SIGTERM or SIGINT, for a command that finishes what it does.
pub(super) fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let handle =
        |kind| signal(kind).map_err(|error| Failure::system("cannot handle signals", &error));
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
