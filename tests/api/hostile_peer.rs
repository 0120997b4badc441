//! A peer that speaks faulty HTTP: raw sockets, without a library that would correct it.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

/// What the peer does next on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends bytes, in one segment.
    Send(Vec<u8>),
    /// Waits.
    Pause(Duration),
    /// Closes the connection gracefully.
    Close,
    /// Resets the connection.
    Reset,
    /// Stops responding, but keeps reading.
    Fall,
}

/// A request, as the peer read it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The number of the connection that it came on.
    pub(crate) connection: usize,
    /// The number of earlier requests on that connection.
    pub(crate) earlier: usize,
    pub(crate) target: String,
    /// The header lines, with names in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map_or("", str::trim)
    }
}

/// What the peer does with a request.
pub(crate) trait Script: Fn(&Asked) -> Vec<Act> + Send + Sync + 'static {}

impl<F: Fn(&Asked) -> Vec<Act> + Send + Sync + 'static> Script for F {}

/// A peer on loopback, on its own thread.
pub(crate) struct HostilePeer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl HostilePeer {
    pub(crate) fn start(script: impl Script) -> Self {
        Self::start_on("127.0.0.1:0", script)
    }

    pub(crate) fn start_on(address: &str, script: impl Script) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let (opened, asked) = (connections.clone(), requests.clone());
        std::thread::spawn(move || {
            let script: Arc<dyn Script> = Arc::new(script);
            actix_web::rt::System::new().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let connection = opened.fetch_add(1, Ordering::SeqCst);
                        let (script, asked) = (script.clone(), asked.clone());
                        actix_web::rt::spawn(async move {
                            // An error means that the gate closed the connection.
                            let _ = converse(stream, connection, &*script, &asked).await;
                        });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            connections,
            requests,
            _stop: stop,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests arrived.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    script: &dyn Script,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let mut earlier = 0;
    while let Some((target, head, body)) = request(&mut stream, &mut buffer).await? {
        requests.fetch_add(1, Ordering::SeqCst);
        let asked = Asked {
            connection,
            earlier,
            target,
            head,
            body,
        };
        earlier += 1;
        for act in script(&asked) {
            match act {
                Act::Send(bytes) => stream.write_all(&bytes).await?,
                Act::Pause(time) => tokio::time::sleep(time).await,
                Act::Close => return stream.shutdown().await,
                Act::Reset => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
                Act::Fall => {
                    let mut ignored = [0; 4096];
                    while stream.read(&mut ignored).await? > 0 {}
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

type Request = (String, String, String);

/// Reads one request; nothing when the connection ends.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    loop {
        let end = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            let head = str::from_utf8(&buffer[..end]).unwrap();
            let body = &buffer[end + 4..];
            let (first, lines) = head.split_once("\r\n").unwrap_or((head, ""));
            let lines = lines
                .lines()
                .map(|line| match line.split_once(':') {
                    Some((name, value)) => format!("{}:{value}\n", name.to_ascii_lowercase()),
                    None => format!("{line}\n"),
                })
                .collect::<String>();
            let length = lines
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                let target = first.split(' ').nth(1).unwrap().to_owned();
                let body = String::from_utf8_lossy(&body[..length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Ok(Some((target, lines, body)));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// A complete response.
pub(crate) fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The same in chunks of three bytes.
pub(crate) fn chunked(status: u16, body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Status\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunk in body.as_bytes().chunks(3) {
        let chunk = str::from_utf8(chunk).unwrap();
        text.push_str(&format!("{:x};part=\"yes\"\r\n{chunk}\r\n", chunk.len()));
    }
    text.push_str("0\r\n\r\n");
    text.into_bytes()
}

/// An interim response.
pub(crate) fn interim(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Interim\r\nlink: </style.css>; rel=preload\r\n\r\n").into_bytes()
}

/// `bytes` in segments of `size`, each after a moment.
pub(crate) fn in_segments(bytes: &[u8], size: usize, pause: Duration) -> Vec<Act> {
    bytes
        .chunks(size)
        .flat_map(|segment| [Act::Send(segment.to_vec()), Act::Pause(pause)])
        .collect()
}
