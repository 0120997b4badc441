//! Finds the end of an HTTP message (RFC 9112, 6).
//!
//! awc decides by itself when a response is complete and its connection can be reused. It takes the first head as the
//! response, although a server may send interim responses (1xx) first, and it ignores bytes that follow a response.
//! So the gate also parses the framing below awc: awc gets exactly one final response, and a connection with any other
//! bytes is not reused.

use std::mem::MaybeUninit;

const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The limit of awc.
const MAX_HEADERS: usize = 96;

/// For a chunk extension or a trailer line.
const MAX_LINE_BYTES: usize = 4096;

/// The state of the response that is being read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No request is in progress.
    Idle,
    /// A request was sent, and its final head was not read yet.
    Head,
    /// The body has this many bytes left.
    Sized(u64),
    Chunked(Chunks),
    /// The end of the connection ends the body.
    UntilClose,
}

/// The parser's state in a chunked body (RFC 9112, 7.1).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    part: Part,
    /// The length of the current line so far.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size(u64),
    /// After the size.
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A trailer line; an empty one ends the body.
    Trailer,
    TrailerEnd,
}

impl Default for Part {
    fn default() -> Self {
        Self::Size(0)
    }
}

/// The head at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Partial,
    /// An interim response of this many bytes, which is skipped.
    Interim(usize),
    /// The head of the response, of this many bytes.
    Final(usize, Framing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("the response is not HTTP")]
    MalformedHead,
    #[error("the response head is longer than {MAX_HEAD_BYTES} bytes")]
    LongHead,
    #[error("the response switches protocols")]
    SwitchesProtocols,
    #[error("the length of the response is ambiguous")]
    AmbiguousLength,
    #[error("malformed chunk in the response")]
    MalformedChunk,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FramingError> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut headers,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD_BYTES => {
                return Err(FramingError::LongHead);
            }
            Ok(httparse::Status::Partial) => return Ok(Self::Partial),
            Err(_) => return Err(FramingError::MalformedHead),
        };
        match response.code {
            Some(101) => Err(FramingError::SwitchesProtocols),
            Some(100..=199) => Ok(Self::Interim(length)),
            Some(status) => Ok(Self::Final(length, body(status, response.headers)?)),
            None => Err(FramingError::MalformedHead),
        }
    }
}

/// Returns the framing of the body (RFC 9112, 6.3). Anything ambiguous is an error.
fn body(status: u16, headers: &[httparse::Header<'_>]) -> Result<Framing, FramingError> {
    let mut length = None;
    let mut codings = 0;
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = decimal(header.value).ok_or(FramingError::AmbiguousLength)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(FramingError::AmbiguousLength);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(FramingError::AmbiguousLength);
            }
            codings += 1;
        }
    }
    let has_no_body = matches!(status, 204 | 304);
    match (length, codings) {
        (None | Some(0), 0) if has_no_body => Ok(Framing::Idle),
        (Some(length), 0) if !has_no_body => Ok(Framing::sized(length)),
        (None, 1) if !has_no_body => Ok(Framing::chunked()),
        (None, 0) => Ok(Framing::UntilClose),
        _ => Err(FramingError::AmbiguousLength),
    }
}

/// Accepts only digits, unlike `parse`, which accepts a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

impl Framing {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    pub(crate) fn sized(length: u64) -> Self {
        if length == 0 {
            Self::Idle
        } else {
            Self::Sized(length)
        }
    }

    /// Continues in the body, and returns how many of `bytes` belong to it. The rest follows the response.
    pub(crate) fn read_body(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match self {
            Self::Idle | Self::Head => Ok(0),
            Self::UntilClose => Ok(bytes.len()),
            Self::Sized(left) => {
                let available = bytes.len() as u64;
                if available < *left {
                    *left -= available;
                    return Ok(bytes.len());
                }
                let taken = usize::try_from(*left).unwrap_or(bytes.len());
                *self = Self::Idle;
                Ok(taken)
            }
            Self::Chunked(chunks) => match chunks.read(bytes)? {
                Some(taken) => {
                    *self = Self::Idle;
                    Ok(taken)
                }
                None => Ok(bytes.len()),
            },
        }
    }
}

impl Chunks {
    /// Continues in the chunks, and returns where the trailer ends, if it does.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        let mut at = 0;
        while at < bytes.len() {
            if let Part::Data(left) = &mut self.part {
                let available = (bytes.len() - at) as u64;
                if available < *left {
                    *left -= available;
                    return Ok(None);
                }
                at += usize::try_from(*left).unwrap_or_default();
                self.part = Part::DataCr;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if (self.part, self.line, byte) == (Part::TrailerEnd, 1, b'\n') {
                return Ok(Some(at));
            }
            self.part = self.after(byte).ok_or(FramingError::MalformedChunk)?;
            self.line = if byte == b'\n' { 0 } else { self.line + 1 };
        }
        Ok(None)
    }

    /// Returns the part after a byte that is not data.
    fn after(&self, byte: u8) -> Option<Part> {
        let is_in_line = byte != b'\n' && self.line < MAX_LINE_BYTES;
        Some(match (self.part, byte) {
            (Part::Size(size), digit) if digit.is_ascii_hexdigit() && self.line < 16 => {
                Part::Size(size << 4 | u64::from(char::from(digit).to_digit(16)?))
            }
            (Part::Size(_), _) if self.line == 0 => return None,
            (Part::Size(size) | Part::Extension(size), b'\r') => Part::SizeEnd(size),
            (Part::Size(size), b';' | b' ' | b'\t') => Part::Extension(size),
            (Part::Extension(size), _) if is_in_line => Part::Extension(size),
            (Part::SizeEnd(0) | Part::TrailerEnd, b'\n') => Part::Trailer,
            (Part::SizeEnd(size), b'\n') => Part::Data(size),
            (Part::DataCr, b'\r') => Part::DataLf,
            (Part::DataLf, b'\n') => Part::Size(0),
            (Part::Trailer, b'\r') => Part::TrailerEnd,
            (Part::Trailer, _) if is_in_line => Part::Trailer,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in pieces of `size`, and returns how many belong to the complete response.
    fn end(bytes: &[u8], size: usize) -> Result<Option<usize>, FramingError> {
        let mut before = 0;
        let (mut at, mut framing) = loop {
            match Head::parse(&bytes[before..])? {
                Head::Partial => return Ok(None),
                Head::Interim(length) => before += length,
                Head::Final(length, framing) => break (before + length, framing),
            }
        };
        for piece in bytes[at..].chunks(size) {
            if framing == Framing::Idle {
                break;
            }
            at += framing.read_body(piece)?;
        }
        Ok((framing == Framing::Idle).then_some(at))
    }

    #[test]
    fn a_response_ends_where_its_framing_says_in_any_segmentation() {
        for response in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nexpires: never\r\n\r\n",
        ] {
            for size in 1..8 {
                let expected = Ok(Some(response.len()));
                assert_eq!(end(response.as_bytes(), size), expected, "{response:?}");
                let followed = format!("{response}HTTP/1.1 200 OK\r\n\r\n");
                assert_eq!(end(followed.as_bytes(), size), expected, "{followed:?}");
            }
            for cut in 0..response.len() {
                assert_eq!(end(&response.as_bytes()[..cut], 3), Ok(None), "{cut}");
            }
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let parsed = Head::parse(head);
        assert_eq!(parsed, Ok(Head::Final(head.len(), Framing::UntilClose)));
        assert_eq!(Framing::UntilClose.read_body(b"all of it"), Ok(9));
    }

    #[test]
    fn an_ambiguous_head_is_an_error() {
        for (head, error) in [
            (
                "content-length: 5\r\ncontent-length: 6",
                FramingError::AmbiguousLength,
            ),
            ("content-length: +5", FramingError::AmbiguousLength),
            ("content-length: 5, 5", FramingError::AmbiguousLength),
            (
                "content-length: 5\r\ntransfer-encoding: chunked",
                FramingError::AmbiguousLength,
            ),
            (
                "transfer-encoding: gzip, chunked",
                FramingError::AmbiguousLength,
            ),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                FramingError::AmbiguousLength,
            ),
            ("no header at all", FramingError::MalformedHead),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            assert_eq!(Head::parse(head.as_bytes()), Err(error), "{head:?}");
        }
        let upgrade = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n";
        assert_eq!(Head::parse(upgrade), Err(FramingError::SwitchesProtocols));
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 70_000]].concat();
        assert_eq!(Head::parse(&endless), Err(FramingError::LongHead));
    }

    #[test]
    fn a_malformed_chunk_is_an_error() {
        for body in [
            "x\r\n",
            "\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "11112222333344445\r\n",
            "-1\r\n",
        ] {
            let response = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            let expected = Err(FramingError::MalformedChunk);
            assert_eq!(end(response.as_bytes(), 2), expected, "{body:?}");
        }
    }
}
