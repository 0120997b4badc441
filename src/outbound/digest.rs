//! Cache keys. They stand for credentials, which no cache stores.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// Also hashes the length of each part, so that different parts never have the same digest.
pub(crate) fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        let part = part.as_ref();
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref());
    digest
}
