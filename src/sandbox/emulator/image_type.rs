//! The supported image types, and what the bytes of an image say.

/// How a file begins, by which it is recognized. A `?` stands for any byte.
type Start = &'static [u8];

/// MIME type, extension, starts.
const TYPES: [(&str, &str, &[Start]); 10] = [
    ("image/jpeg", "jpg", &[b"\xff\xd8\xff"]),
    (
        "image/jxl",
        "jxl",
        &[b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"],
    ),
    ("image/png", "png", &[b"\x89PNG\r\n\x1a\n"]),
    ("image/webp", "webp", &[b"RIFF????WEBPVP8"]),
    ("image/avif", "avif", &[b"????ftypavif"]),
    ("image/gif", "gif", &[b"GIF87a", b"GIF89a"]),
    ("image/vnd.microsoft.icon", "ico", &[b"\0\0\x01\0"]),
    ("image/heic", "heic", &[b"????ftypheic"]),
    ("image/bmp", "bmp", &[b"BM????\0\0\0\0"]),
    ("image/tiff", "tiff", &[b"II*\0", b"MM\0*"]),
];

pub(super) fn is_supported(mime_type: &str) -> bool {
    TYPES.iter().any(|(supported, ..)| *supported == mime_type)
}

pub(super) fn extension(mime_type: &str) -> &'static str {
    let mut types = TYPES.iter();
    let found = types.find(|(supported, ..)| *supported == mime_type);
    found.map_or("png", |(_, extension, _)| extension)
}

/// The MIME type of a file; `None` for one that is no supported image.
pub(super) fn recognize(bytes: &[u8]) -> Option<&'static str> {
    let mut types = TYPES.iter();
    let begins_with = |start: &Start| {
        let same = |(byte, expected): (&u8, &u8)| *expected == b'?' || byte == expected;
        bytes.len() >= start.len() && bytes.iter().zip(*start).all(same)
    };
    let found = types.find(|(.., starts)| starts.iter().any(begins_with));
    found.map(|(mime_type, ..)| *mime_type)
}

/// Width and height of a PNG or a GIF. The emulator reads no others.
pub(super) fn dimensions(bytes: &[u8]) -> (u32, u32) {
    let four = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
    let two = |at: usize| bytes.get(at..at + 2)?.try_into().ok();
    let found = match recognize(bytes) {
        Some("image/png") => four(16).zip(four(20)).map(|(width, height)| {
            let read = u32::from_be_bytes;
            (read(width), read(height))
        }),
        Some("image/gif") => two(6).zip(two(8)).map(|(width, height)| {
            let read = |bytes| u16::from_le_bytes(bytes).into();
            (read(width), read(height))
        }),
        _ => None,
    };
    found.unwrap_or_default()
}
