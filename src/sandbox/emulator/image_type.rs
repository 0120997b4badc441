//! The supported image types, and what the bytes of an image say.

/// The offset and the bytes by which a file is recognized.
type Magic = (usize, &'static [u8]);

/// MIME type, extension, magic bytes.
const TYPES: [(&str, &str, Magic); 10] = [
    ("image/jpeg", "jpg", (0, b"\xff\xd8\xff")),
    ("image/jxl", "jxl", (0, b"\xff\x0a")),
    ("image/png", "png", (0, b"\x89PNG")),
    ("image/webp", "webp", (8, b"WEBP")),
    ("image/avif", "avif", (4, b"ftypavif")),
    ("image/gif", "gif", (0, b"GIF8")),
    ("image/vnd.microsoft.icon", "ico", (0, b"\0\0\x01\0")),
    ("image/heic", "heic", (4, b"ftypheic")),
    ("image/bmp", "bmp", (0, b"BM")),
    ("image/tiff", "tiff", (0, b"II*\0")),
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
    let found = types.find(|(_, _, (offset, magic))| {
        let rest = bytes.get(*offset..);
        rest.is_some_and(|rest| rest.starts_with(magic))
    });
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
