//! Finds where requests begin and end on a connection (RFC 9112, 6), to limit their time.
//!
//! actix-http parses requests, but limits only the time of the first head on a connection. The result of this parser
//! affects only the time limit. Any byte outside a complete request starts the timer, so if the two parsers disagree,
//! the connection ends too early rather than too late.

use memchr::memchr;

use crate::outbound::Framing;

/// The two headers that matter fit into this.
const MAX_LINE_BYTES: usize = 64;

/// The parser of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestFraming {
    state: State,
    /// The length of all heads since the last call of [`reset_head_bytes`](Self::reset_head_bytes).
    head_bytes: usize,
}

#[derive(Debug, Default)]
enum State {
    /// Between requests.
    #[default]
    Idle,
    Head(Head),
    Body(Framing),
}

/// A head that is being read.
#[derive(Debug, Default)]
struct Head {
    /// The current line, up to [`MAX_LINE_BYTES`].
    line: Vec<u8>,
    has_request_line: bool,
    content_length: u64,
    is_chunked: bool,
}

impl RequestFraming {
    pub(super) fn is_within_a_request(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    pub(super) fn is_within_a_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// The length of all heads since the last response, in bytes.
    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    pub(super) fn reset_head_bytes(&mut self) {
        self.head_bytes = 0;
    }

    /// Parses the next bytes. Returns whether they complete a request.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_completed = false;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Idle => self.state = State::Head(Head::default()),
                State::Head(head) => {
                    let Some(length) = head.read(bytes) else {
                        self.head_bytes += bytes.len();
                        return has_completed;
                    };
                    self.head_bytes += length;
                    bytes = &bytes[length..];
                    let framing = head.body();
                    has_completed |= framing == Framing::Idle;
                    self.enter(framing);
                }
                State::Body(framing) => {
                    let Ok(length) = framing.read_body(bytes) else {
                        // actix rejects this request; the timer keeps running.
                        return has_completed;
                    };
                    bytes = &bytes[length..];
                    if *framing == Framing::Idle {
                        has_completed = true;
                        self.enter(Framing::Idle);
                    }
                }
            }
        }
        has_completed
    }

    fn enter(&mut self, framing: Framing) {
        self.state = if framing == Framing::Idle {
            State::Idle
        } else {
            State::Body(framing)
        };
    }
}

impl Head {
    /// Returns how many of `bytes` belong to the head if it ends within them.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &bytes[at..]) {
            let piece = &bytes[at..at + length];
            at += length + 1;
            let is_last = if self.line.is_empty() {
                self.take_line(piece)
            } else {
                self.keep(piece);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)
            };
            if is_last {
                return Some(at);
            }
        }
        self.keep(&bytes[at..]);
        None
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Takes a line without its line feed. Returns whether it ends the head.
    fn take_line(&mut self, line: &[u8]) -> bool {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            // Empty lines before a request line are skipped.
            return self.has_request_line;
        }
        if !std::mem::replace(&mut self.has_request_line, true) {
            return false;
        }
        let value = |name: &[u8]| {
            let (start, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
        };
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value(b"content-length") {
                    let length = str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    self.content_length = length.unwrap_or(u64::MAX);
                }
            }
            b't' | b'T' => self.is_chunked |= value(b"transfer-encoding").is_some(),
            _ => {}
        }
        false
    }

    fn body(&self) -> Framing {
        match (self.is_chunked, self.content_length) {
            (true, _) => Framing::chunked(),
            (false, length) => Framing::sized(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: [&str; 6] = [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:5\r\n\r\nhello",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ncookie: ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nx: y\r\n\r\n",
        "GET / HTTP/1.1\n\n",
    ];

    #[test]
    fn a_request_is_complete_with_its_last_byte_in_any_segmentation() {
        for request in REQUESTS {
            for size in 1..request.len() + 1 {
                let mut framing = RequestFraming::default();
                let mut pieces = request.as_bytes().chunks(size).peekable();
                while let Some(piece) = pieces.next() {
                    let is_complete = framing.read(piece);
                    assert_eq!(
                        is_complete,
                        pieces.peek().is_none(),
                        "{request:?} by {size}"
                    );
                    assert_ne!(is_complete, framing.is_within_a_request());
                }
            }
        }
    }

    #[test]
    fn bytes_after_a_request_belong_to_the_next_one() {
        for first in REQUESTS {
            for second in REQUESTS {
                let mut framing = RequestFraming::default();
                assert!(framing.read(format!("{first}{second}").as_bytes()));
                assert!(!framing.is_within_a_request());
                let cut = second.len() - 1;
                assert!(framing.read(format!("{first}{}", &second[..cut]).as_bytes()));
                assert!(framing.is_within_a_request(), "{first:?} {second:?}");
                assert!(framing.read(&second.as_bytes()[cut..]));
                assert!(!framing.is_within_a_request());
            }
        }
    }

    #[test]
    fn an_invalid_request_never_completes() {
        for text in [
            "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let mut framing = RequestFraming::default();
            assert!(!framing.read(text.as_bytes()), "{text:?}");
            assert!(!framing.read(&[b'x'; 1000]));
            assert!(framing.is_within_a_request());
        }
    }
}
