//! A network between a gate and its store that can fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// It works.
    Works,
    /// It delays every packet.
    Delays(Duration),
    /// It silently drops every packet.
    Drops,
    /// It silently drops what clients send with this text.
    Hides(&'static str),
    /// It closes a connection on which a client sends this text.
    ClosesOn(&'static str),
    /// It resets every connection, and every new one.
    Resets,
}

/// A proxy before a port of this machine.
pub(crate) struct TcpProxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    counted: Counted,
}

/// Shared by all connections.
#[derive(Clone, Default)]
struct Counted {
    sent: Arc<AtomicU64>,
    withheld: Arc<AtomicU64>,
    loses_an_answer: Arc<AtomicBool>,
}

impl TcpProxy {
    pub(crate) fn before(port: u16) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), port)
    }

    /// The same at an address.
    pub(crate) fn at(address: SocketAddr, port: u16) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (network, mode) = watch::channel(Network::Works);
        let counted = Counted::default();
        let shared = counted.clone();
        // On its own thread, which ends when the proxy is dropped.
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut ended = mode.clone();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let (client, _) = accepted.unwrap();
                            let (mode, shared) = (mode.clone(), shared.clone());
                            actix_web::rt::spawn(carry(client, port, mode, shared));
                        }
                        ended = async { while ended.changed().await.is_ok() {} } => {
                            let () = ended;
                            break;
                        }
                    }
                }
            });
        });
        Self {
            address,
            network,
            counted,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send(network).unwrap();
    }

    /// The number of writes to the server; each sends all bytes that are available.
    pub(crate) fn sent(&self) -> u64 {
        self.counted.sent.load(Ordering::Relaxed)
    }

    /// How often a client sent the text that the network hides, or on which it closes the connection.
    pub(crate) fn withheld(&self) -> u64 {
        self.counted.withheld.load(Ordering::Relaxed)
    }

    /// Loses the next answer by resetting its connection.
    pub(crate) fn lose_an_answer(&self) {
        self.counted.loses_an_answer.store(true, Ordering::Relaxed);
    }

    /// Whether the answer was lost.
    pub(crate) fn has_lost_it(&self) -> bool {
        !self.counted.loses_an_answer.load(Ordering::Relaxed)
    }
}

async fn carry(
    mut client: TcpStream,
    port: u16,
    mut network: watch::Receiver<Network>,
    counted: Counted,
) {
    client.set_nodelay(true).unwrap();
    if *network.borrow() == Network::Resets {
        reset(&client);
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        reset(&client);
        return;
    };
    server.set_nodelay(true).unwrap();
    let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                counted.sent.fetch_add(1, Ordering::Relaxed);
                let now = *network.borrow();
                if let Network::Hides(text) | Network::ClosesOn(text) = now
                    && up[..length].windows(text.len()).any(|sent| sent == text.as_bytes())
                {
                    counted.withheld.fetch_add(1, Ordering::Relaxed);
                    if now == Network::Hides(text) {
                        continue;
                    }
                    return;
                }
                if !pass(&network).await || server.write_all(&up[..length]).await.is_err() {
                    continue;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if counted.loses_an_answer.swap(false, Ordering::Relaxed) {
                    reset(&client);
                    return;
                }
                if !pass(&network).await || client.write_all(&down[..length]).await.is_err() {
                    continue;
                }
            }
            changed = network.changed() => {
                if changed.is_err() || *network.borrow() == Network::Resets {
                    reset(&client);
                    return;
                }
            }
        }
    }
}

/// Delays as the network does; returns whether the bytes arrive.
async fn pass(network: &watch::Receiver<Network>) -> bool {
    let now = *network.borrow();
    if let Network::Delays(delay) = now {
        tokio::time::sleep(delay).await;
    }
    now != Network::Drops
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
